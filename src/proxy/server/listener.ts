import { once } from "node:events";
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { maxHeaderBytes } from "../../upstream/upstream.ts";
import { RegistryError, respondWithError } from "../registry-error.ts";
import { respondToClientError, respondToPlainHttp } from "./client-errors.ts";
import {
  type ConnectionTracker,
  createConnectionTracker,
  limitConnections,
} from "./connections.ts";
import type { ServerCertificates } from "./server-certificates.ts";

/** An address to listen at. */
export interface ListenAddress {
  readonly scheme: "http" | "https";
  /** A host name or an IP address without brackets. */
  readonly host: string;
  /** 0 for any port that is free. */
  readonly port: number;
  /** The name in the certificate for clients that send no SNI; `host` by default. */
  readonly certificateName?: string;
}

/** A server that listens. */
export interface Listener {
  /** The address that was wanted, with the port that was found. */
  readonly address: ListenAddress;
  /** When the last connection came, in milliseconds of `performance.now`; 0 before the first. */
  lastConnectionAt(): number;
  /** Takes no new connections, waits for requests under way, and ends after `graceMs` at the latest. */
  stop(graceMs: number): Promise<void>;
}

/** Options of every HTTP server that clients connect to. */
export const serverOptions: ServerOptions = {
  maxHeaderSize: maxHeaderBytes,
  requestTimeout: 0, // a push of many GB takes longer than Node's 300 s (nodejs/node#46574)
  headersTimeout: 60_000,
  // Go's clients keep connections for 30 to 120 s; one that we close first resets an upload that can't be sent again.
  keepAliveTimeout: 130_000,
  noDelay: true,
};

/** Handles a request. It never throws: an error becomes the response. */
export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** Handles a CONNECT. `head` has the bytes that came behind the request on its connection. */
export type ConnectHandler = (request: IncomingMessage, socket: Socket, head: Buffer) => void;

export interface ListenOptions {
  /** Connections of one client address that may be open; 4,096 by default. */
  readonly maxConnectionsPerAddress?: number | undefined;
  readonly handler: Handler;
  readonly onConnect: ConnectHandler;
  readonly certificates: ServerCertificates;
}

/**
 * Listens for clients.
 * @returns once the port is open
 * @throws the socket's error where the address can't be had
 */
export async function listen(
  { scheme, host, port, certificateName = host }: ListenAddress,
  { handler, onConnect, certificates, maxConnectionsPerAddress = 4_096 }: ListenOptions,
): Promise<Listener> {
  const server =
    scheme === "http"
      ? createServer(serverOptions)
      : await createTlsServer(certificateName, certificates);
  limitConnections(server, maxConnectionsPerAddress);
  const connections = createConnectionTracker(server);
  attachHandler(server, handler);
  server.on("connect", (request: IncomingMessage, socket: Socket, head: Buffer) => {
    if (connections.handOver(socket)) onConnect(request, socket, head);
    else socket.destroy();
  });
  server.listen(port, host);
  await once(server, "listening");
  const found = (server.address() as AddressInfo).port;
  return {
    address: { scheme, host, port: found },
    lastConnectionAt: connections.lastConnectionAt,
    stop: (graceMs) => stop(server, connections, graceMs),
  };
}

/** Has a handler respond to all requests of a server, and this room to what the HTTP parser refuses. */
export function attachHandler(server: Server, handler: Handler): void {
  server.on("request", handler);
  server.on("checkContinue", handler); // the handler says 100 once the request is admitted
  server.on("checkExpectation", refuseExpectation);
  server.on("clientError", respondToClientError);
}

/**
 * A server whose certificate follows the SNI. Clients that connect to an IP address send none (RFC 6066, section 3); they
 * get a certificate for `ownName`, renewed every hour.
 */
async function createTlsServer(ownName: string, certificates: ServerCertificates): Promise<Server> {
  const issueOwn = async (): Promise<{ readonly cert: string; readonly key: string }> => {
    const { certificate, privateKey } = await certificates.issueFor(ownName);
    return { cert: certificate, key: privateKey };
  };
  const server = createHttpsServer({
    ...serverOptions,
    ...(await issueOwn()),
    minVersion: "TLSv1.2",
    ALPNProtocols: ["http/1.1"],
    SNICallback(name, callback) {
      certificates.contextFor(name).then(
        (context) => callback(null, context),
        (error: Error) => callback(error),
      );
    },
  });
  respondToPlainHttp(server);
  server.once("listening", () => {
    const renewal = setInterval(() => {
      issueOwn().then(
        (pair) => server.setSecureContext(pair),
        () => undefined, // the one in use is good for as long again
      );
    }, renewalIntervalMs).unref();
    server.once("close", () => clearInterval(renewal));
  });
  return server;
}

/** A leaf lives for weeks, but the authority may be replaced sooner. */
const renewalIntervalMs = 60 * 60 * 1000;

function refuseExpectation(_request: IncomingMessage, response: ServerResponse): void {
  respondWithError(
    response,
    new RegistryError(417, "UNSUPPORTED", "the only supported expectation is 100-continue"),
  );
}

async function stop(
  server: Server,
  connections: ConnectionTracker,
  graceMs: number,
): Promise<void> {
  const closed = once(server, "close");
  server.close();
  connections.finish();
  const end = setTimeout(() => connections.destroy(), graceMs);
  await closed;
  clearTimeout(end);
}
