import { Agent as HttpsAgent } from "node:https";
import type { SecureContext } from "node:tls";
import type { Identity } from "../../connector/surroundings.ts";
import { authorize } from "../admission.ts";
import { upstreamOf } from "../handler.ts";
import { denied } from "../registry-error.ts";
import { checkHead } from "../request/request-head.ts";
import { type ConnectorMatch, matchedConnector } from "./connector-match.ts";
import { permitDestination } from "./destination.ts";
import type { ForwardedRequest, ForwardOptions } from "./forwarded.ts";
import { passOn } from "./pass-on.ts";

/**
 * Passes on what is not for a connector's registry API: to another host, or, as package registries and web pages often
 * share a host with a registry, to its other paths. Either goes without the connector's credential, and as policy has it.
 * @throws RegistryError 403, 502
 */
export async function passOnToHost(
  { request, response, report, target, identity }: ForwardedRequest,
  beside: ConnectorMatch | undefined,
  options: ForwardOptions,
): Promise<void> {
  const { origin, hostname, port, path } = target;
  checkHead(request);
  report.host = `${hostname}:${port}`;
  const isIntercepted = origin.startsWith("https:");
  if (isIntercepted && beside === undefined) {
    const message = `none of the connectors that this connection was opened for is at ${origin} any more`;
    throw denied(message, { headers: { connection: "close" } });
  }
  const destination = permitDestination(options.policy, hostname, port);
  options.limits.admit(identity.subject, report.host, response);
  report.isPassedOn = true;
  const secureContext = isIntercepted
    ? await secureContextOf(beside, identity, options)
    : undefined;
  const { connectionPool, bodyTimeoutMs } = options;
  const { subject } = identity;
  await passOn({
    request,
    response,
    origin,
    path,
    destination,
    subject,
    secureContext,
    connectionPool,
    bodyTimeoutMs,
  });
}

/** What is trusted as the registry: its certificates are as good for its other paths. */
async function secureContextOf(
  serving: ConnectorMatch | undefined,
  identity: Identity,
  options: ForwardOptions,
): Promise<SecureContext | undefined> {
  if (serving === undefined) return undefined;
  const connector = matchedConnector(
    await authorize(serving.ref, "pull", identity, options),
    serving,
  );
  const { uploadAgent } = await upstreamOf(connector, options);
  return uploadAgent instanceof HttpsAgent ? uploadAgent.options.secureContext : undefined;
}
