import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { AroundRequest, Identity } from "../../connector/platform.ts";
import type { Log } from "../../log.ts";
import type { Egress } from "../../upstream/egress.ts";
import type { AdmissionOptions } from "../admission.ts";
import type { RequestObserver } from "../handler.ts";
import { asRegistryError, denied, RegistryError, reasonPhrase } from "../registry-error.ts";
import { checkHead } from "../request/request-head.ts";
import type { RequestLimiter } from "../request-limits.ts";
import { decisionOfRefusal } from "../request-report.ts";
import { noteIdentity } from "../server/connection-limits.ts";
import type { ConnectHandler } from "../server/listener.ts";
import type { BlindTunnels } from "./blind-tunnels.ts";
import { explainScheme, findConnectorMatches } from "./connector-match.ts";
import { connectTo, permitDestination } from "./destination.ts";
import { type ForwardTarget, parseConnectTarget } from "./forward-target.ts";
import type { Interception } from "./interception.ts";
import { identify, readProxyCredential } from "./proxy-credential.ts";
import type { TunnelPolicy } from "./tunnel-policy.ts";

/** What the CONNECT handler needs. */
export interface ConnectOptions extends AdmissionOptions {
  /** Is run around each request. */
  readonly aroundRequest: AroundRequest;
  readonly policy: TunnelPolicy;
  readonly egress?: Egress | undefined;
  readonly interception: Interception;
  readonly tunnels: BlindTunnels;
  readonly limits: RequestLimiter;
  readonly observer: RequestObserver;
  readonly log: Log;
}

/**
 * Creates the handler of CONNECT. A connection to a registry of the client's connectors is intercepted; to any other host there
 * is a blind tunnel where the policy allows it, or else a refusal.
 */
export const createConnectHandler =
  (options: ConnectOptions): ConnectHandler =>
  (request, socket, head) => {
    const report = openTunnelReport(request, socket, options.observer);
    socket.setTimeout(0);
    socket.on("error", () => undefined); // `close` follows
    const handled = options.aroundRequest(() => handle(request, socket, head, report, options));
    handled.catch((error: unknown) => {
      const known = asRegistryError(error) ?? unexpected;
      if (known.status >= 500) {
        const cause = known === unexpected ? error : known.cause;
        const fields = { host: report.host, reason: known.message, error: cause };
        options.log("warning", "CONNECT failed", fields, report.identity ?? "stranger");
      }
      report.refused(known);
      refuse(socket, known);
    });
  };

async function handle(
  request: IncomingMessage,
  socket: Socket,
  head: Buffer,
  report: TunnelReport,
  options: ConnectOptions,
): Promise<void> {
  const target = parseConnectTarget(request.url ?? "");
  if (target === undefined) throw invalidTarget();
  checkHead(request);
  const credential = readProxyCredential(request);
  const identity = await identify(credential, options);
  report.identity = identity;
  if (socket.destroyed) return;
  noteIdentity(socket, identity);
  options.limits.admitTunnel(identity, socket);
  const found = await findConnectorMatches(target.origin, credential.connectors, identity, options);
  const { matches, refusal } = found;
  if (matches.length > 0) {
    const intercept = await options.interception.prepare({
      target,
      credential,
      subject: identity.subject,
    });
    if (socket.destroyed) return;
    socket.write(establishedResponse);
    intercept(socket, head);
    return;
  }
  if (refusal !== undefined) throw denied(refusal);
  await openTunnel(target, socket, head, report, options).catch((error: unknown) => {
    throw explainScheme(error, target.origin, found);
  });
}

async function openTunnel(
  target: ForwardTarget,
  socket: Socket,
  head: Buffer,
  report: TunnelReport,
  { policy, egress, tunnels }: ConnectOptions,
): Promise<void> {
  const remote = await connectTo(permitDestination(policy, egress, target), socket);
  report.opened();
  socket.write(establishedResponse);
  if (head.length > 0) remote.write(head);
  tunnels.join(socket, remote);
}

const establishedResponse = "HTTP/1.1 200 Connection established\r\n\r\n";

const invalidTarget = (): RegistryError =>
  new RegistryError(
    400,
    "UNSUPPORTED",
    "CONNECT requires a host name or an IP address, and a port",
  );

const unexpected = new RegistryError(500, "UNKNOWN", "internal error; see the proxy's log");

/** How long a client may take to read its refusal. */
const lingerTimeoutMs = 10_000;

/**
 * Responds with an error. Go's clients show a person only the phrase of the status line, and curl only the status, so phrase
 * and body both say why.
 */
function refuse(socket: Socket, { status, message, detail, headers }: RegistryError): void {
  const body = `${message}${detail === undefined ? "" : `\n${detail}`}\n`;
  const fields = {
    ...headers,
    connection: "close",
    "content-type": "text/plain; charset=utf-8",
    "content-length": String(Buffer.byteLength(body)),
  };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status} ${reasonPhrase(message)}\r\n${lines.join("")}\r\n${body}`);
  socket.resume(); // a connection that is closed with bytes unread takes the response along
  const timer = setTimeout(() => socket.destroy(), lingerTimeoutMs);
  socket.once("close", () => clearTimeout(timer));
}

/**
 * The report of a CONNECT, made when it is refused or when its tunnel ends. An intercepted connection has none of its own,
 * since each request inside has one.
 */
interface TunnelReport {
  identity: Identity | undefined;
  /** The host and port of the request: `github.com:443`. */
  readonly host: string;
  /** The tunnel is open. */
  opened(): void;
  /** The CONNECT was refused, or failed. */
  refused(error: RegistryError): void;
}

/** No host name is longer, with its port. */
const maxHostLength = 260;

function openTunnelReport(
  request: IncomingMessage,
  socket: Socket,
  { requestStarted, requestEnded }: RequestObserver,
): TunnelReport {
  const { url = "" } = request;
  const begin = performance.now();
  const { bytesRead, bytesWritten } = socket;
  const end = (status: number, reason: string | undefined): void =>
    requestEnded({
      method: "CONNECT",
      operation: "tunnel",
      identity: report.identity,
      host: report.host,
      image: undefined,
      ref: undefined,
      connector: undefined,
      repository: undefined,
      reference: undefined,
      verb: undefined,
      decision: reason === undefined ? "allowed" : decisionOfRefusal(request, { status }),
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
