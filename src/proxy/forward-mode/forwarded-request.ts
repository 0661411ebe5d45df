import type { IncomingMessage, ServerResponse } from "node:http";
import type { SecureContext } from "node:tls";
import type { Identity } from "../../connector/platform.ts";
import type { Egress } from "../../upstream/egress.ts";
import { authorize } from "../admission.ts";
import {
  type HandleRequest,
  type HandlerOptions,
  handleRegistryRequest,
  type RegistryRequest,
  upstreamOf,
} from "../handler.ts";
import { denied, isForbidden, RegistryError } from "../registry-error.ts";
import { checkHead } from "../request/request-head.ts";
import { parseRegistryTarget } from "../request/request-target.ts";
import type { ReportDraft } from "../request-report.ts";
import { noteIdentity } from "../server/connection-limits.ts";
import type { ConnectionPool } from "./connection-pool.ts";
import {
  type ConnectorMatch,
  chooseConnector,
  explainScheme,
  findConnectorMatches,
  matchedConnector,
} from "./connector-match.ts";
import { permitDestination } from "./destination.ts";
import { type ForwardTarget, isHostOf, parseAbsoluteTarget } from "./forward-target.ts";
import { interceptedConnectionOf } from "./interception.ts";
import { passOn } from "./pass-on.ts";
import { identify, type ProxyCredential, readProxyCredential } from "./proxy-credential.ts";
import type { TunnelPolicy } from "./tunnel-policy.ts";
import { showsVolumeToken } from "./volume-token.ts";

/** What the handlers of forwarded requests need. */
export interface ForwardOptions extends HandlerOptions {
  /** Says which other hosts may be reached. */
  readonly policy: TunnelPolicy;
  /** Connections to hosts that requests are passed on to. */
  readonly connectionPool: ConnectionPool;
  /** A company's proxy, by which hosts are reached. */
  readonly egress?: Egress | undefined;
}

/** A request of forward mode whose sender is known. */
interface ForwardedRequest {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly report: ReportDraft;
  /** Where the request is to go, with its path. */
  readonly target: ForwardTarget;
  readonly identity: Identity;
  readonly credential: ProxyCredential;
}

/** Creates the handler of requests inside of an intercepted connection. */
export const createInterceptedRequestHandler =
  (options: ForwardOptions): HandleRequest =>
  async (request, response, report) => {
    const { target, credential } = interceptedConnectionOf(request);
    const identity = await identify(credential, options).catch((error: unknown) => {
      // The client takes the response for the registry's, so a 407 would ask it for a credential that it does not have.
      if (!(error instanceof RegistryError) || error.status !== 407) throw error;
      throw denied(error.message, { headers: { connection: "close" } });
    });
    report.identity = identity;
    const { host } = request.headers;
    if (host !== undefined && !isHostOf("https", host, target)) throw misdirected(host, target);
    const path = request.url ?? "";
    // An absolute target could name another host than the CONNECT did.
    if (!path.startsWith("/")) {
      const message = "a request inside a CONNECT tunnel must name a path, not a URL";
      throw new RegistryError(400, "UNSUPPORTED", message);
    }
    const forwarded = {
      request,
      response,
      report,
      identity,
      credential,
      target: { ...target, path },
    };
    await forwardRequest(forwarded, options);
  };

/** Creates the handler of requests with an absolute target, which clients send to a proxy for plain HTTP. */
export const createPlainRequestHandler =
  (options: ForwardOptions): HandleRequest =>
  async (request, response, report) => {
    const target = parseAbsoluteTarget(request.url ?? "");
    if (target === undefined) throw invalidTarget();
    const credential = readProxyCredential(request);
    const identity = await identify(credential, options);
    report.identity = identity;
    noteIdentity(request.socket, identity);
    await forwardRequest({ request, response, report, target, identity, credential }, options);
  };

/** Relays a request to a connector's registry, or passes it on to any other host. */
async function forwardRequest(forwarded: ForwardedRequest, options: ForwardOptions): Promise<void> {
  const { request, response, report, target, identity, credential } = forwarded;
  options.limits.admit(identity, response);
  const found = await findConnectorMatches(target.origin, credential.connectors, identity, options);
  const { matches, refusal } = found;
  const [path = ""] = target.path.split("?", 1);
  const longest = matches.find(({ address }) => isRegistryPath(path, address.basePath));
  if (longest === undefined) {
    if (refusal !== undefined) throw denied(refusal, { headers: { connection: "close" } });
    await passOnToHost(forwarded, matches[0], options).catch((error: unknown) => {
      throw explainScheme(error, target.origin, found);
    });
    return;
  }
  const { basePath } = longest.address;
  const registryTarget = parseRegistryTarget(target.path, basePath);
  const others = matches.filter(
    (match) => match !== longest && match.address.basePath === basePath,
  );
  const { method = "GET" } = request;
  const chosen = await chooseConnector(
    [longest, ...others],
    { method, target: registryTarget, identity },
    options,
  );
  const registryRequest: RegistryRequest = {
    target: registryTarget,
    identity,
    async findConnector(_target, verb) {
      report.ref = chosen.ref;
      return matchedConnector(await authorize(chosen.ref, verb, identity, options), chosen);
    },
    isForward: true,
  };
  await handleRegistryRequest(request, response, report, registryRequest, options);
}

/** Whether a path is below the API of the registry that has this base path. */
const isRegistryPath = (path: string, basePath: string): boolean =>
  path === `${basePath}/v2` || path.startsWith(`${basePath}/v2/`);

/**
 * Passes a request on that is not for a connector's registry API: to another host, or to another path of a registry's host,
 * since package registries and web pages often share it. The policy decides, and no credential of a connector goes along.
 * @param atHost a connector at that host, where there is one; its certificates are trusted
 * @throws RegistryError 403, 502
 */
async function passOnToHost(
  { request, response, report, target, identity, credential }: ForwardedRequest,
  atHost: ConnectorMatch | undefined,
  options: ForwardOptions,
): Promise<void> {
  const { origin, hostname, port, path } = target;
  checkHead(request);
  if (showsVolumeToken(path, credential.token)) throw tokenInUrl();
  report.host = `${hostname}:${port}`;
  const isIntercepted = origin.startsWith("https:");
  if (isIntercepted && atHost === undefined) {
    const message = `none of the connectors that this connection was opened for is at ${origin} any more`;
    throw denied(message, { headers: { connection: "close" } });
  }
  const destination = permitDestination(options.policy, options.egress, target);
  options.limits.admitTo(report.host, response);
  report.isPassedOn = true;
  const secureContext = isIntercepted
    ? await secureContextOf(atHost, identity, options)
    : undefined;
  const { connectionPool, bodyTimeoutMs } = options;
  const { subject } = identity;
  report.isSent = true;
  await passOn({
    request,
    response,
    origin,
    path,
    destination,
    subject,
    token: credential.token,
    secureContext,
    connectionPool,
    bodyTimeoutMs,
  }).catch((error: unknown) => {
    if (isForbidden(error)) report.isSent = false; // the policy allows none of the host's addresses
    throw error;
  });
}

/** The certificates that a connector trusts for its registry: they count for other paths of its host, too. */
async function secureContextOf(
  match: ConnectorMatch | undefined,
  identity: Identity,
  options: ForwardOptions,
): Promise<SecureContext | undefined> {
  if (match === undefined) return undefined;
  const connector = matchedConnector(await authorize(match.ref, "pull", identity, options), match);
  return (await upstreamOf(connector, options)).secureContext;
}

/** A part of a URL can't be left out as a header can: that would be another request. */
const tokenInUrl = (): RegistryError =>
  new RegistryError(
    400,
    "UNSUPPORTED",
    "the URL shows the token of a volume, which is for this proxy alone",
    { detail: "send the request without it" },
  );

const invalidTarget = (): RegistryError =>
  new RegistryError(
    400,
    "UNSUPPORTED",
    "a request to a forward proxy must name http://<host>[:<port>]/…, or be a CONNECT",
    {
      detail: "https needs CONNECT: the network between the client and this proxy must not read it",
    },
  );

/** 421 (RFC 9110, section 15.5.20): the Host header names another host than the CONNECT. */
const misdirected = (host: string, { origin }: ForwardTarget): RegistryError =>
  new RegistryError(
    421,
    "UNSUPPORTED",
    `the request is for ${host.slice(0, 100)}, but its connection is for ${origin}`,
  );
