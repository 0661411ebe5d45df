import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Action } from "../connector/access-rules.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import type { Identity } from "../connector/platform.ts";
import type { RequestTarget } from "./request/request-target.ts";

/** What became of a request. It becomes a line of the audit log (docs/audit-log.md has the fields) and counts in the metrics. */
export interface RequestReport {
  readonly method: string;
  /**
   * `pull manifest`, `push upload`, `base`, or `none` where the request was none of the registry API. In forward mode, for
   * another host than a connector's: `tunnel` for a CONNECT, `pass` for a request that was passed on as it was.
   */
  readonly operation: string;
  /** Who sent the request; undefined where that could not be verified. */
  readonly identity: Identity | undefined;
  /** The host and port of a request of forward mode that was not for a connector: `github.com:443`. */
  readonly host: string | undefined;
  /** The image that a request to the mirror is about: `harbor.example.com/app/web:1`; without a tag or digest for a blob. */
  readonly image: string | undefined;
  /** The connector that the request named, whether or not it exists. */
  readonly ref: ConnectorRef | undefined;
  /** `namespace/name` of the connector, where it exists and may be used by who asked. */
  readonly connector: string | undefined;
  readonly repository: string | undefined;
  /** A tag or a digest. */
  readonly reference: string | undefined;
  readonly verb: Action | undefined;
  /**
   * Whether the proxy sent the request on. `challenged` where it had no login and so got a challenge, with which every client
   * begins; `refused` where it was not sent on for any other reason.
   */
  readonly decision: Decision;
  /** Why the request was refused, or failed. */
  readonly reason: string | undefined;
  /**
   * The HTTP status that the client got; 499 where it went away first. Where the proxy ended a response that had begun,
   * it is the status of the error that was the reason.
   */
  readonly status: number;
  /** The HTTP status of the registry's response; undefined where there was none. */
  readonly upstreamStatus: number | undefined;
  /** Bytes that came on the connection, heads included. */
  readonly bytesReceived: number;
  /** Bytes that were sent on the connection, heads included. */
  readonly bytesSent: number;
  readonly durationMs: number;
}

/** What the proxy has decided about a request. */
export type Decision = "allowed" | "challenged" | "refused";

/** The decision about a request that gets an error of ours. @param error its status */
export const decisionOfRefusal = (
  { headers }: IncomingMessage,
  { status }: { readonly status: number },
): Exclude<Decision, "allowed"> => {
  const isAnonymous =
    (status === 401 && headers.authorization === undefined) ||
    (status === 407 && headers["proxy-authorization"] === undefined);
  return isAnonymous ? "challenged" : "refused";
};

/** What is known of a request while it is under way; whoever handles it fills it in. */
export interface ReportDraft {
  /** Undefined where the request was none of the registry API. */
  target?: RequestTarget;
  /** The host and port that a request of forward mode goes to, if not to a connector. */
  host?: string;
  /** Whether it is passed on to that host. */
  isPassedOn?: boolean;
  identity?: Identity;
  /** The image that a request to the mirror is about. */
  image?: string;
  /** The connector that the request named, whether or not it exists. */
  ref?: ConnectorRef;
  verb?: Action;
  /** The connector, once the request may use it. */
  connector?: ConnectorRef | undefined;
  /**
   * Whether the proxy sends the request on to the registry, or to the other host. It stays true where they, or the
   * registry's token server, refuse it or can't be reached.
   */
  isSent?: boolean;
  /** Of a request that is not sent on: `refused`, unless it is only challenged. */
  decision?: Exclude<Decision, "allowed">;
  /** Why the request was refused, or failed. */
  reason?: string;
  upstreamStatus?: number;
  /** The status of the error for which the proxy ends a response that has begun, and destroys the connection. */
  cutStatus?: number;
}

/**
 * The bytes of each connection that were read when its last report was made. A report counts from there, and not from its
 * own beginning, since by then a part of the body may have been read with the head.
 */
const reportedBytesRead = new WeakMap<Socket, number>();

/** The status that nginx logs for a client that went away before its response was sent. */
const clientClosedRequest = 499;

/**
 * Begins the report of a request.
 * @param onClose gets the report once the response is closed, whatever came of it
 * @returns the draft to fill in
 */
export function openReport(
  request: IncomingMessage,
  response: ServerResponse,
  onClose: (report: RequestReport) => void,
): ReportDraft {
  const draft: ReportDraft = {};
  const { socket } = request;
  const begin = performance.now();
  const { bytesWritten } = socket;
  response.once("close", () => {
    const { target, connector } = draft;
    const bytesReceived = socket.bytesRead - (reportedBytesRead.get(socket) ?? 0);
    reportedBytesRead.set(socket, socket.bytesRead);
    onClose({
      method: request.method ?? "",
      operation: operationOf(draft),
      identity: draft.identity,
      host: draft.host,
      image: draft.image,
      ref: draft.ref,
      connector: connector && showRef(connector),
      repository: (target !== "base" && target?.repository) || undefined,
      reference: referenceOf(target),
      verb: draft.verb,
      decision: draft.isSent ? "allowed" : (draft.decision ?? "refused"),
      reason: draft.reason,
      status: response.writableFinished
        ? response.statusCode
        : (draft.cutStatus ?? clientClosedRequest),
      upstreamStatus: draft.upstreamStatus,
      bytesReceived,
      bytesSent: socket.bytesWritten - bytesWritten,
      durationMs: Math.round(performance.now() - begin),
    });
  });
  return draft;
}

function operationOf({ target, verb, isPassedOn }: ReportDraft): string {
  if (isPassedOn) return "pass";
  if (target === undefined) return "none";
  if (target === "base") return "base";
  return `${verb ?? "ask"} ${target.endpoint.kind}`;
}

function referenceOf(target: RequestTarget | undefined): string | undefined {
  if (target === undefined || target === "base") return undefined;
  const { endpoint } = target;
  if (endpoint.kind === "manifest") return endpoint.reference;
  return endpoint.kind === "blob" || endpoint.kind === "referrers" ? endpoint.digest : undefined;
}
