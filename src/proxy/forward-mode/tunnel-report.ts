import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Identity } from "../../connector/surroundings.ts";
import type { RequestObserver } from "../handler.ts";
import type { RegistryError } from "../registry-error.ts";

/**
 * What becomes of a CONNECT: reported when it is refused, or when its tunnel ends. One that is intercepted has no
 * report of its own, since the requests inside have.
 */
export interface TunnelReport {
  identity: Identity | undefined;
  /** `github.com:443` */
  readonly host: string;
  opened(): void;
  refused(error: RegistryError): void;
}

/** No name is longer, with its port. */
const maxHostLength = 260;

export function openTunnelReport(
  { url = "" }: IncomingMessage,
  socket: Socket,
  { requestStarted, requestEnded }: RequestObserver,
): TunnelReport {
  const begin = performance.now();
  const { bytesRead, bytesWritten } = socket;
  const end = (status: number, reason: string | undefined): void =>
    requestEnded({
      method: "CONNECT",
      operation: "tunnel",
      identity: report.identity,
      host: report.host,
      ref: undefined,
      connector: undefined,
      repository: undefined,
      reference: undefined,
      verb: undefined,
      decision: reason === undefined ? "allowed" : "refused",
      reason,
      status,
      upstreamStatus: undefined,
      bytesReceived: socket.bytesRead - bytesRead,
      bytesSent: socket.bytesWritten - bytesWritten,
      durationMs: Math.round(performance.now() - begin),
    });
  const report: TunnelReport = {
    identity: undefined,
    host: url.slice(0, maxHostLength),
    opened() {
      requestStarted();
      socket.once("close", () => end(200, undefined));
    },
    refused({ status, message }) {
      requestStarted();
      end(status, message);
    },
  };
  return report;
}
