import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Action } from "../connector/access-rules.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import type { Identity } from "../connector/surroundings.ts";
import type { RequestTarget } from "./request/request-target.ts";

/** What became of a request: a line of the audit log, and what is counted. */
export interface RequestReport {
  readonly method: string;
  /**
   * `pull manifest`, `push upload`, `base`, or `none` where the request was none of the API. In forward mode, where it was
   * for another host than a connector's: `tunnel` for a CONNECT, `pass` for a request that was passed on as it was.
   */
  readonly operation: string;
  /** Who asked; undefined where nobody was let in. */
  readonly identity: Identity | undefined;
  /** Where a request of forward mode went, or was to go, that was none for a connector: `github.com:443`. */
  readonly host: string | undefined;
  /** Which connector was asked for, whether or not there is one. */
  readonly ref: ConnectorRef | undefined;
  /** `namespace/name` of a connector that there is, and that they may use. */
  readonly connector: string | undefined;
  readonly repository: string | undefined;
  /** A tag or a digest. */
  readonly reference: string | undefined;
  readonly verb: Action | undefined;
  /** Whether the proxy let it through to the registry. */
  readonly decision: "allowed" | "refused";
  /** Why it was refused, or failed. */
  readonly reason: string | undefined;
  /** What the client got; 499 where it went away first. */
  readonly status: number;
  /** What the registry answered; undefined where it was not asked, or did not answer. */
  readonly upstreamStatus: number | undefined;
  /** Of the connection, so heads are counted too. */
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly durationMs: number;
}

/** A report that is being written, while the request is under way. */
export interface ReportDraft {
  target?: RequestTarget;
  /** Where it goes, if not to a connector. */
  host?: string;
  /** Whether it is passed on there. */
  isPassedOn?: boolean;
  identity?: Identity;
  ref?: ConnectorRef;
  verb?: Action;
  connector?: ConnectorRef;
  reason?: string;
  upstreamStatus?: number;
}

/** What had been read of a connection when its last report was closed: a request's body may arrive with its head. */
const reportedBytesRead = new WeakMap<Socket, number>();

/** nginx's status for a client that went away. */
const clientClosedRequest = 499;

/** Opens a report, which is handed over when the response is done with. */
export function openReport(
  request: IncomingMessage,
  response: ServerResponse,
  done: (report: RequestReport) => void,
): ReportDraft {
  const draft: ReportDraft = {};
  const { socket } = request;
  const begin = performance.now();
  const { bytesWritten } = socket;
  response.once("close", () => {
    const { target, connector } = draft;
    const bytesReceived = socket.bytesRead - (reportedBytesRead.get(socket) ?? 0);
    reportedBytesRead.set(socket, socket.bytesRead);
    done({
      method: request.method ?? "",
      operation: operationOf(draft),
      identity: draft.identity,
      host: draft.host,
      ref: draft.ref,
      connector: connector && showRef(connector),
      repository: (target !== "base" && target?.repository) || undefined,
      reference: referenceOf(target),
      verb: draft.verb,
      decision: connector === undefined && !draft.isPassedOn ? "refused" : "allowed",
      reason: draft.reason,
      status: response.writableFinished ? response.statusCode : clientClosedRequest,
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
