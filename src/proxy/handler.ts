import type { IncomingMessage, ServerResponse } from "node:http";
import type { Connector } from "../connector/connector.ts";
import { showRef } from "../connector/connector-ref.ts";
import type { AroundRequest, Identity, ReadUpstreamSecrets, Verb } from "../connector/platform.ts";
import type { Log } from "../log.ts";
import { withExpiry } from "../upstream/expired-certificate.ts";
import type { Upstream, Upstreams } from "../upstream/upstream.ts";
import { UpstreamError } from "../upstream/upstream-error.ts";
import {
  type AdmissionOptions,
  actionOf,
  authenticate,
  authorize,
  checkRules,
  connectorOf,
} from "./admission.ts";
import type { AdmittedRequest } from "./admitted.ts";
import { ClientGone, cut } from "./client-gone.ts";
import {
  apiVersion,
  asRegistryError,
  denied,
  isForbidden,
  RegistryError,
  respondWithError,
} from "./registry-error.ts";
import { Patience } from "./relay/patience.ts";
import { type RelayOptions, relayRequest } from "./relay/relay.ts";
import { isLoop } from "./relay/upstream-request.ts";
import { mirrorParameter, parameterNames } from "./request/query.ts";
import type { RefusedBodies } from "./request/refused-bodies.ts";
import { checkBody, readManifestBody } from "./request/request-body.ts";
import { checkHead } from "./request/request-head.ts";
import {
  checkMethod,
  parseRequestTarget,
  type RepositoryTarget,
  type RequestTarget,
} from "./request/request-target.ts";
import type { RequestLimiter } from "./request-limits.ts";
import {
  decisionOfRefusal,
  openReport,
  type ReportDraft,
  type RequestReport,
} from "./request-report.ts";
import { noteIdentity } from "./server/connection-limits.ts";
import { createStallWatch } from "./server/connections.ts";
import type { Handler } from "./server/listener.ts";

export interface HandlerOptions extends AdmissionOptions, RelayOptions {
  /** Is run around each request. */
  readonly aroundRequest: AroundRequest;
  readonly readUpstreamSecrets: ReadUpstreamSecrets;
  readonly upstreams: Upstreams;
  /** How long a whole manifest of a push may take to come. */
  readonly manifestTimeoutMs: number;
  /** After this time in which a client takes nothing of its response, it counts as gone. */
  readonly stallTimeoutMs: number;
  readonly limits: RequestLimiter;
  readonly refusedBodies: RefusedBodies;
  readonly observer: RequestObserver;
  readonly log: Log;
}

/** Observes every request, for metrics and the audit log. */
export interface RequestObserver {
  requestStarted(): void;
  /** The request is over, whatever came of it. */
  requestEnded(report: RequestReport): void;
}

/** Responds to a request. What it throws becomes the response, where there is none yet. */
export type HandleRequest = (
  request: IncomingMessage,
  response: ServerResponse,
  report: ReportDraft,
) => Promise<void>;

/** Handles a request to the mirror: its query names the registry, and neither path nor host a connector. */
export type HandleMirrorRequest = (
  request: IncomingMessage,
  response: ServerResponse,
  report: ReportDraft,
  target: RepositoryTarget,
) => Promise<void>;

/**
 * Handles the registry requests of clients that address this proxy itself. The path or the host names the connector.
 * @param handleMirrorRequest handles the requests of container runtimes; without it, there is no mirror
 */
export const createHandler = (
  options: HandlerOptions,
  handleMirrorRequest?: HandleMirrorRequest,
): Handler =>
  createReportingHandler(options, async (request, response, report) => {
    const target = parseRequestTarget(request.url ?? "");
    report.target = target;
    const { host } = request.headers;
    if (handleMirrorRequest !== undefined && isForMirror(target, host, options)) {
      await handleMirrorRequest(request, response, report, target);
      return;
    }
    const identity = await authenticate(request, options);
    report.identity = identity;
    noteIdentity(request.socket, identity);
    if (target !== "base") options.limits.admit(identity, response);
    const findConnector = (to: RepositoryTarget, verb: Verb): Promise<Connector> => {
      report.ref = connectorOf(to, host, options);
      return authorize(report.ref, verb, identity, options);
    };
    const registryRequest = { target, identity, findConnector };
    await handleRegistryRequest(request, response, report, registryRequest, options);
  });

/** Whether a request is for the mirror. A connector that its path or its host names comes first. */
const isForMirror = (
  target: RequestTarget,
  host: string | undefined,
  { connectorOfHost }: HandlerOptions,
): target is RepositoryTarget =>
  target !== "base" &&
  target.connector === undefined &&
  parameterNames(target.query).includes(mirrorParameter) &&
  connectorOfHost(host ?? "") === undefined;

/** A handler that reports every request, responds to errors, and ends the connections of clients that stall. */
export function createReportingHandler(
  options: Pick<
    HandlerOptions,
    "aroundRequest" | "observer" | "log" | "stallTimeoutMs" | "refusedBodies"
  >,
  handleRequest: HandleRequest,
): Handler {
  const endWhenStalled = createStallWatch(options.stallTimeoutMs);
  return (request, response) => {
    endWhenStalled(response);
    options.observer.requestStarted();
    const report = openReport(request, response, options.observer.requestEnded);
    options
      .aroundRequest(() => handleRequest(request, response, report))
      .catch((error: unknown) => respondToError(request, response, error, report, options));
  };
}

/** What a request is for, and who has sent it. */
export interface RegistryRequest {
  readonly target: RequestTarget;
  readonly identity: Identity;
  /**
   * Finds the connector that is meant, where the identity may use it, at the one of its addresses that is requested. It
   * notes in the report which one that is, and is not called for `/v2/` itself.
   * @throws RegistryError 404, 403; Unavailable
   */
  readonly findConnector: (target: RepositoryTarget, verb: Verb) => Promise<Connector>;
  /** Whether it came by the forward proxy. */
  readonly isForward?: boolean;
}

/**
 * Checks a registry request step by step, and relays it to the registry of its connector. Its subject's limit was
 * checked before.
 * @throws RegistryError, UpstreamError, Unavailable, ClientGone, BodyCut
 */
export async function handleRegistryRequest(
  request: IncomingMessage,
  response: ServerResponse,
  report: ReportDraft,
  registryRequest: RegistryRequest,
  options: HandlerOptions,
): Promise<void> {
  const { method = "GET" } = request;
  const { target, identity, findConnector, isForward = false } = registryRequest;
  report.target = target;

  // Can it be read in one way alone, and is it a request of the API?
  checkHead(request);
  checkMethod(method, target);
  checkBody(request, method);
  if (target === "base") return respondToBase(response);

  // May this identity do that with this connector?
  const action = actionOf(method, target.endpoint);
  report.verb = action;
  const connector = await findConnector(target, action === "pull" ? "pull" : "push");

  // Is there room for it, and do its rules allow it? Whoever is told of a limit may use the connector.
  options.limits.admitTo(connector.uid, response);
  checkRules(connector, action, target.repository, identity);

  // Does it lead to a registry?
  report.connector = report.ref && connector;
  if (isLoop(request.headers)) {
    throw denied(`the address ${connector.address.origin} leads back to this proxy`);
  }

  const heldBody =
    target.endpoint.kind === "manifest"
      ? await readManifestBody(request, response, {
          ...options,
          holdBytes: options.limits.holdBytesFor(identity, connector.uid, response),
        })
      : undefined;
  const patience = new Patience(response);
  await relayWithCurrentSecrets(
    {
      request,
      response,
      method,
      target,
      connector,
      identity,
      isForward,
      heldBody,
      report,
      patience,
    },
    options,
  );
  options.refusedBodies.readOn(request, identity); // where a registry has not waited for its end
}

const baseHeaders = { ...apiVersion, "content-type": "application/json", "content-length": "2" };

/** `/v2/` is not relayed. The response tells a client that this is a registry, and that its token is good. */
function respondToBase(response: ServerResponse): void {
  response.writeHead(200, baseHeaders).end("{}");
}

/**
 * Relays a request with the connector's credential and certificates and, where the registry refuses them, or its own
 * certificate is not trusted, and a Secret has changed since it was read, once more with what that says now.
 */
async function relayWithCurrentSecrets(
  admitted: AdmittedRequest,
  options: HandlerOptions,
): Promise<void> {
  const { connector, request, response, heldBody } = admitted;
  const relayTo = (upstream: Upstream): Promise<void> =>
    relayRequest(admitted, upstream, options).catch((error: unknown) => {
      throw withExpiry(error, upstream, Date.now());
    });
  const upstream = await upstreamOf(connector, options);
  try {
    await relayTo(upstream);
  } catch (error) {
    const isTooLate = response.headersSent || (request.readableDidRead && heldBody === undefined);
    if (isTooLate || !(isForbidden(error) || isOfCertificate(error))) throw error;
    const renewed = await upstreamOf(connector, options, true);
    if (renewed.tokenKey === upstream.tokenKey && renewed.send === upstream.send) throw error;
    await relayTo(renewed);
  }
}

const isOfCertificate = (error: unknown): boolean =>
  error instanceof UpstreamError && error.fault === "CertificateInvalid";

/**
 * The registry of a connector, with its credential.
 * @param fresh whether to read the credential past any cache
 * @throws RegistryError 403; Unavailable
 */
export async function upstreamOf(
  connector: Connector,
  { readUpstreamSecrets, upstreams }: Pick<HandlerOptions, "readUpstreamSecrets" | "upstreams">,
  fresh = false,
): Promise<Upstream> {
  const secrets = await readUpstreamSecrets(connector, { fresh });
  if (secrets.ok) return upstreams.of(connector, secrets.value);
  throw denied(`the connector ${showRef(connector)} has no login: ${secrets.reason}`);
}

/** The one place where an error ends: as the response where there is none yet, else as a destroyed connection. */
function respondToError(
  request: IncomingMessage,
  response: ServerResponse,
  error: unknown,
  report: ReportDraft,
  { log, refusedBodies }: Pick<HandlerOptions, "log" | "refusedBodies">,
): void {
  if (error instanceof ClientGone || response.destroyed) return;
  const known = asRegistryError(error);
  report.reason = known?.message ?? "unexpected error";
  logFailure(request, error, report, log);
  const shown = known ?? unexpectedError;
  report.decision = decisionOfRefusal(request, shown);
  if (response.headersSent) {
    report.cutStatus = shown.status; // the client has a part, and is not the one who went away
    cut(response);
    return;
  }
  respondWithError(response, shown);
  refusedBodies.readOn(request, report.identity);
}

/** Logs an error of the registry or of this proxy. Clients get to know their own errors by the response. */
function logFailure(
  { method = "" }: IncomingMessage,
  error: unknown,
  { ref, target, reason, identity }: ReportDraft,
  log: Log,
): void {
  const known = asRegistryError(error);
  if (known !== undefined && known.status < 500) return;
  const fields = {
    method,
    ...(ref && { connector: showRef(ref) }),
    ...(target !== "base" && target?.repository && { repository: target.repository }),
    ...(reason !== undefined && { reason }),
    error: known === undefined ? error : known.cause,
  };
  log("warning", "request failed", fields, identity ?? "stranger");
}

const unexpectedError = new RegistryError(500, "UNKNOWN", "internal error; see the proxy's log");
