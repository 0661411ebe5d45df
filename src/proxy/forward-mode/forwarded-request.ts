import type { IncomingMessage, ServerResponse } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import type { SecureContext } from "node:tls";
import type { ConnectorRef } from "../../connector/connector-ref.ts";
import type { Identity } from "../../connector/surroundings.ts";
import { authorize } from "../admission.ts";
import {
  type HandleRequest,
  type HandlerOptions,
  handleRegistryRequest,
  type RegistryRequest,
  upstreamOf,
} from "../handler.ts";
import { denied, RegistryError } from "../registry-error.ts";
import { checkHead } from "../request/request-head.ts";
import { parseRegistryTarget } from "../request/request-target.ts";
import type { ReportDraft } from "../request-report.ts";
import type { ConnectionPool } from "./connection-pool.ts";
import { type ConnectorMatch, findConnectorMatches, matchedConnector } from "./connector-match.ts";
import { permitDestination } from "./destination.ts";
import { type ForwardTarget, isHostOf, parseAbsoluteTarget } from "./forward-target.ts";
import { interceptedConnectionOf } from "./interception.ts";
import { passOn } from "./pass-on.ts";
import { identify, readProxyCredential } from "./proxy-credential.ts";
import type { TunnelPolicy } from "./tunnel-policy.ts";

export interface ForwardOptions extends HandlerOptions {
  readonly policy: TunnelPolicy;
  /** To hosts that requests are passed on to. */
  readonly connectionPool: ConnectionPool;
}

/** A request of forward mode, and who has sent it. */
interface ForwardedRequest {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly report: ReportDraft;
  /** Where it goes; its path is the request's own. */
  readonly target: ForwardTarget;
  readonly identity: Identity;
  readonly connectors: readonly ConnectorRef[];
}

/** Answers requests inside a connection that is intercepted. */
export const createInterceptedRequestHandler =
  (options: ForwardOptions): HandleRequest =>
  async (request, response, report) => {
    const { target, credential } = interceptedConnectionOf(request);
    const identity = await identify(credential, options).catch((error: unknown) => {
      // The client has no credential for the registry that it speaks to, so there is none to ask it for.
      if (!(error instanceof RegistryError) || error.status !== 407) throw error;
      throw denied(error.message, { headers: { connection: "close" } });
    });
    report.identity = identity;
    const { host } = request.headers;
    if (host !== undefined && !isHostOf("https", host, target)) throw misdirected(host, target);
    const path = request.url ?? "";
    // Another host in the request's target would be one in the tunnel of this one.
    if (!path.startsWith("/"))
      throw new RegistryError(
        400,
        "UNSUPPORTED",
        "a request inside a CONNECT tunnel must name a path, not a URL",
      );
    const forwarded = { request, response, report, identity, target: { ...target, path } };
    await forwardRequest({ ...forwarded, connectors: credential.connectors }, options);
  };

/** Answers requests with an absolute target, of clients that use the proxy for plain HTTP. */
export const createPlainRequestHandler =
  (options: ForwardOptions): HandleRequest =>
  async (request, response, report) => {
    const target = parseAbsoluteTarget(request.url ?? "");
    if (target === undefined) throw invalidTarget();
    const { connectors, ...credential } = readProxyCredential(request);
    const identity = await identify({ ...credential, connectors }, options);
    report.identity = identity;
    await forwardRequest({ request, response, report, target, identity, connectors }, options);
  };

async function forwardRequest(forwarded: ForwardedRequest, options: ForwardOptions): Promise<void> {
  const { request, response, report, target, identity, connectors } = forwarded;
  const { matches: serving, refusal } = await findConnectorMatches(
    target.origin,
    connectors,
    identity,
    options,
  );
  const [path = ""] = target.path.split("?", 1);
  const chosen = serving.find(({ address }) => isRegistryPath(path, address.basePath));
  if (chosen === undefined) {
    if (refusal !== undefined) throw denied(refusal, { headers: { connection: "close" } });
    await passOnToHost(forwarded, serving[0], options);
    return;
  }
  const question: RegistryRequest = {
    target: parseRegistryTarget(target.path, chosen.address.basePath),
    identity,
    findRef: () => chosen.ref,
    atAddress: (connector) => matchedConnector(connector, chosen),
    isForward: true,
  };
  await handleRegistryRequest(request, response, report, question, options);
}

/** Whether a path is one of the registry's API; its base path, and then the longest one, tells which. */
const isRegistryPath = (path: string, basePath: string): boolean =>
  path === `${basePath}/v2` || path.startsWith(`${basePath}/v2/`);

/**
 * Passes on what is not for a connector's registry API: to another host, or, as package registries and web pages often
 * share a host with a registry, to its other paths. Either goes without the connector's credential, and as policy has it.
 * @throws RegistryError 403, 502
 */
async function passOnToHost(
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

const invalidTarget = (): RegistryError =>
  new RegistryError(
    400,
    "UNSUPPORTED",
    "a request to a forward proxy must name http://<host>[:<port>]/…, or be a CONNECT",
    {
      detail: "https needs CONNECT: the network between the client and this proxy must not read it",
    },
  );

/** RFC 9110, section 15.5.20. */
const misdirected = (host: string, { origin }: ForwardTarget): RegistryError =>
  new RegistryError(
    421,
    "UNSUPPORTED",
    `the request is for ${host.slice(0, 100)}, but its connection is for ${origin}`,
  );
