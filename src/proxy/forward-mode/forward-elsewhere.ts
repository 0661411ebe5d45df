import { Agent as HttpsAgent } from "node:https";
import type { SecureContext } from "node:tls";
import type { Identity } from "../../connector/surroundings.ts";
import { authorize } from "../admission.ts";
import { upstreamOf } from "../handler.ts";
import { denied } from "../registry-error.ts";
import { checkHead } from "../request/request-head.ts";
import { permit } from "./connect.ts";
import type { Forwarded, ForwardedOptions } from "./forwarded.ts";
import { passOn } from "./pass-on.ts";
import { atOrGone, type Serving } from "./serving.ts";

/**
 * Passes on what is not for a connector's registry API: to another host, or, as package registries and web pages often
 * share a host with a registry, to its other paths. Either goes without the connector's credential, and as policy has it.
 * @throws RegistryError 403, 502
 */
export async function forwardElsewhere(
  { request, response, report, target, identity }: Forwarded,
  beside: Serving | undefined,
  options: ForwardedOptions,
): Promise<void> {
  const { origin, hostname, port, path } = target;
  checkHead(request);
  report.host = `${hostname}:${port}`;
  const isIntercepted = origin.startsWith("https:");
  if (isIntercepted && beside === undefined) {
    const message = `none of the connectors that this connection was opened for is at ${origin} any more`;
    throw denied(message, { headers: { connection: "close" } });
  }
  const destination = permit(options.policy, hostname, port);
  options.limits.admit(identity.subject, report.host, response);
  report.isPassedOn = true;
  const secureContext = isIntercepted ? await trustOf(beside, identity, options) : undefined;
  const { kept, bodyTimeoutMs: bodyTimeout } = options;
  const { subject } = identity;
  await passOn({
    request,
    response,
    origin,
    path,
    destination,
    subject,
    secureContext,
    kept,
    bodyTimeout,
  });
}

/** What is trusted as the registry: its certificates are as good for its other paths. */
async function trustOf(
  serving: Serving | undefined,
  identity: Identity,
  options: ForwardedOptions,
): Promise<SecureContext | undefined> {
  if (serving === undefined) return undefined;
  const connector = atOrGone(await authorize(serving.ref, "pull", identity, options), serving);
  const { uploadAgent } = await upstreamOf(connector, options);
  return uploadAgent instanceof HttpsAgent ? uploadAgent.options.secureContext : undefined;
}
