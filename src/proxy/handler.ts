import type { IncomingMessage, ServerResponse } from "node:http";
import type { Connector } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import type { Identity, ReadUpstreamSecrets } from "../connector/surroundings.ts";
import type { Log } from "../log.ts";
import type { Upstream, Upstreams } from "../upstream/upstream.ts";
import type { UpstreamLogin } from "../upstream/upstream-login.ts";
import {
  type AdmissionOptions,
  actionOf,
  authenticate,
  authorize,
  checkRules,
  connectorOf,
} from "./admission.ts";
import type { Admitted } from "./admitted.ts";
import { BodyCut, ClientGone, cut } from "./client-gone.ts";
import {
  apiVersion,
  asRegistryError,
  denied,
  isRefusal,
  RegistryError,
  respondWithError,
} from "./registry-error.ts";
import type { HashBudget } from "./relay/body-sink.ts";
import { drain } from "./relay/client-response.ts";
import { Patience } from "./relay/patience.ts";
import { relayRequest } from "./relay/relay.ts";
import type { SessionSeal } from "./relay/upload-session.ts";
import { goesRound } from "./relay/upstream-request.ts";
import { checkBody, readManifestBody } from "./request/request-body.ts";
import { checkHead } from "./request/request-head.ts";
import {
  checkMethod,
  parseRequestTarget,
  type RepositoryTarget,
  type RequestTarget,
} from "./request/request-target.ts";
import type { LimitKeeper } from "./request-limits.ts";
import { openReport, type ReportDraft, type RequestReport } from "./request-report.ts";
import type { Handler } from "./server/listener.ts";
import { createStallWatch } from "./stalled-client.ts";

export interface HandlerOptions extends AdmissionOptions {
  readonly readUpstreamSecrets: ReadUpstreamSecrets;
  readonly upstreams: Upstreams;
  readonly login: UpstreamLogin;
  readonly seal: SessionSeal;
  readonly now: () => number;
  /** Milliseconds without a byte after which a client that sends a body counts as gone. */
  readonly bodyTimeout: number;
  /** Milliseconds in which it takes nothing of its answer, after which a client counts as gone. */
  readonly stallTimeout: number;
  /** Before each try to go on with a blob that was cut, in milliseconds. */
  readonly waits: readonly number[];
  readonly hashBudget: HashBudget;
  readonly limits: LimitKeeper;
  readonly observer: RequestObserver;
  readonly log: Log;
}

/** Is told of every request. */
export interface RequestObserver {
  requestStarted(): void;
  /** Once it is over, whatever came of it. */
  requestEnded(report: RequestReport): void;
}

/** Answers a request. Whatever it throws becomes the answer, where there is none yet. */
export type HandleRequest = (
  request: IncomingMessage,
  response: ServerResponse,
  report: ReportDraft,
) => Promise<void>;

/** Answers registry requests: who asks, for which connector, may they, and what does the registry say? */
export const createHandler = (options: HandlerOptions): Handler =>
  reported(options, async (request, response, report) => {
    const target = parseRequestTarget(request.url ?? "");
    report.target = target;
    const identity = await authenticate(request, options);
    const connector = (to: RepositoryTarget): ConnectorRef =>
      connectorOf(to, request.headers.host, options);
    await handleRegistryRequest(
      request,
      response,
      report,
      { target, identity, connector },
      options,
    );
  });

/** A handler that reports every request, answers errors, and waits for no client for ever. */
export function reported(
  options: Pick<HandlerOptions, "observer" | "log" | "stallTimeout">,
  act: HandleRequest,
): Handler {
  const endWhenStalled = createStallWatch(options.stallTimeout);
  return (request, response) => {
    endWhenStalled(response);
    options.observer.requestStarted();
    const report = openReport(request, response, options.observer.requestEnded);
    act(request, response, report).catch((error: unknown) =>
      respondToError(request, response, error, report, options),
    );
  };
}

/** What is asked, and by whom. */
export interface RegistryRequest {
  readonly target: RequestTarget;
  readonly identity: Identity;
  /** Which connector is meant; for `/v2/` itself it is none. @throws RegistryError 404 */
  readonly connector: (target: RepositoryTarget) => ConnectorRef;
  /** The connector at the one of its addresses that is asked; at its own where nothing is said. */
  readonly at?: (connector: Connector) => Connector;
  /** Whether it came by the forward proxy. */
  readonly isForward?: boolean;
}

/** Answers a registry request from the connector that it means. @throws RegistryError, Unavailable, ClientGone, BodyCut */
export async function handleRegistryRequest(
  request: IncomingMessage,
  response: ServerResponse,
  report: ReportDraft,
  question: RegistryRequest,
  options: HandlerOptions,
): Promise<void> {
  const method = request.method ?? "GET";
  const {
    target,
    identity,
    at = (connector: Connector) => connector,
    isForward = false,
  } = question;
  report.target = target;
  report.identity = identity;
  checkHead(request);
  checkMethod(method, target);
  checkBody(request, method);
  if (target === "base") {
    response.writeHead(200, baseHeaders).end("{}");
    return;
  }
  const action = actionOf(method, target.endpoint);
  report.verb = action;
  const ref = question.connector(target);
  report.ref = ref;
  const verb = action === "pull" ? "pull" : "push";
  const connector = at(await authorize(ref, verb, identity, options));
  checkRules(connector, action, target.repository, identity);
  options.limits.admit(identity.subject, connector.uid, response);
  report.connector = connector;
  if (goesRound(request.headers)) {
    throw denied(`the address of the connector ${showRef(connector)} leads back to this proxy`);
  }
  const held =
    target.endpoint.kind === "manifest"
      ? await readManifestBody(request, response, options.bodyTimeout, options.limits)
      : undefined;
  const patience = new Patience(response);
  const admitted = {
    request,
    response,
    method,
    target,
    connector,
    identity,
    isForward,
    held,
    report,
    patience,
  };
  await withCurrentSecrets(admitted, options, (upstream) =>
    relayRequest(admitted, upstream, options),
  );
}

const baseHeaders = { ...apiVersion, "content-type": "application/json", "content-length": "2" };

/**
 * Does something with the connector's credential and, where the registry refuses it and the Secret
 * has changed since it was read, once more with the new one.
 */
async function withCurrentSecrets(
  { connector, request, held }: Admitted,
  options: HandlerOptions,
  act: (upstream: Upstream) => Promise<void>,
): Promise<void> {
  const upstream = await upstreamOf(connector, options);
  try {
    await act(upstream);
  } catch (error) {
    const isGone = request.readableDidRead && held === undefined;
    if (isGone || !isRefusal(error)) throw error;
    const renewed = await upstreamOf(connector, options, true);
    if (renewed.tokenKey === upstream.tokenKey) throw error;
    await act(renewed);
  }
}

/**
 * The registry of a connector, with its credential.
 * @param fresh whether to read that past any cache
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

/** The one place where an error ends: as the answer where there is none yet, else as a destroyed connection. */
function respondToError(
  request: IncomingMessage,
  response: ServerResponse,
  error: unknown,
  report: ReportDraft,
  { log }: Pick<HandlerOptions, "log">,
): void {
  if (error instanceof ClientGone || response.destroyed) return;
  const known = asRegistryError(error);
  report.reason = known?.message ?? (error instanceof BodyCut ? error.message : ownMistake);
  logFailure(request, error, report, log);
  if (response.headersSent) {
    cut(response);
    return;
  }
  respondWithError(response, known ?? unexpected);
  drain(request);
}

/** What is the client's to mend is no news for the log. */
function logFailure(
  { method = "" }: IncomingMessage,
  error: unknown,
  { ref, target, reason }: ReportDraft,
  log: Log,
): void {
  const known = asRegistryError(error);
  if (known !== undefined && known.status < 500) return;
  log("warning", "request failed", {
    method,
    ...(ref && { connector: showRef(ref) }),
    ...(target !== "base" && target?.repository && { repository: target.repository }),
    ...(reason !== undefined && { reason }),
    error: known === undefined ? error : known.cause,
  });
}

const unexpected = new RegistryError(500, "UNKNOWN", "internal error; see the proxy's log");
const ownMistake = "unexpected error";
