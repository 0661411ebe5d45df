import { once } from "node:events";
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { maxHeaderBytes } from "../../upstream/upstream.ts";
import { RegistryError, respondWithError } from "../registry-error.ts";
import { type Connections, followConnections, limitConnections } from "./connections.ts";
import { refuseMalformed, refusePlain } from "./malformed.ts";
import type { ServerCertificates } from "./server-certificates.ts";

/** Where to listen. */
export interface ListenAddress {
  readonly scheme: "http" | "https";
  /** A host name or an IP address without brackets. */
  readonly host: string;
  /** 0 for any that is free. */
  readonly port: number;
  /** What clients that name nobody get a certificate for; the host, unless it is said. */
  readonly certificateName?: string;
}

export interface Listener {
  /** As asked for, with the port that was found. */
  readonly address: ListenAddress;
  /** When the last connection came, as `performance.now` tells time; 0 before the first. */
  lastConnectionAt(): number;
  /** Takes no new connections, waits for requests under way, and ends after `grace` milliseconds at the latest. */
  stop(grace: number): Promise<void>;
}

/** For every server that clients of registries speak HTTP with. */
export const serverOptions: ServerOptions = {
  maxHeaderSize: maxHeaderBytes,
  requestTimeout: 0, // a push of many GB takes longer than Node's 300 s (nodejs/node#46574)
  headersTimeout: 60_000,
  // Go's clients keep connections for 30 to 120 s; one that we close first resets an upload that can't be sent again.
  keepAliveTimeout: 130_000,
  noDelay: true,
};

/** Answers a request; whatever goes wrong becomes the response. */
export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** A CONNECT, its connection, and what came behind it on that. */
export type ConnectHandler = (request: IncomingMessage, socket: Socket, head: Buffer) => void;

export interface ListenOptions {
  /** Of one address; thousands where nothing is said. */
  readonly mostConnections?: number | undefined;
  readonly handler: Handler;
  readonly onConnect: ConnectHandler;
  readonly certificates: ServerCertificates;
}

/** Listens for registry clients. @throws the socket's error where the address can't be had */
export async function listen(
  { scheme, host, port, certificateName = host }: ListenAddress,
  { handler, onConnect, certificates, mostConnections = 4_096 }: ListenOptions,
): Promise<Listener> {
  const server =
    scheme === "http"
      ? createServer(serverOptions)
      : await tlsServer(certificateName, certificates);
  limitConnections(server, mostConnections);
  const connections = followConnections(server);
  serve(server, handler);
  server.on("connect", (request: IncomingMessage, socket: Socket, head: Buffer) => {
    if (connections.handOver(socket)) onConnect(request, socket, head);
    else socket.destroy();
  });
  server.listen(port, host);
  await once(server, "listening");
  const found = (server.address() as AddressInfo).port;
  return {
    address: { scheme, host, port: found },
    lastConnectionAt: connections.lastAt,
    stop: (grace) => stop(server, connections, grace),
  };
}

/** Has a handler answer all that a server is asked. */
export function serve(server: Server, handler: Handler): void {
  server.on("request", handler);
  server.on("checkContinue", handler); // the handler says 100 once the request is let in
  server.on("checkExpectation", refuseExpectation);
  server.on("clientError", refuseMalformed);
}

/** Clients that connect to an IP address send no name (RFC 6066, section 3). */
async function tlsServer(ownName: string, certificates: ServerCertificates): Promise<Server> {
  const own = async (): Promise<{ readonly cert: string; readonly key: string }> => {
    const { certificate, privateKey } = await certificates.leaf(ownName);
    return { cert: certificate, key: privateKey };
  };
  const server = createTlsServer({
    ...serverOptions,
    ...(await own()),
    minVersion: "TLSv1.2",
    ALPNProtocols: ["http/1.1"],
    SNICallback(name, callback) {
      certificates.context(name).then(
        (context) => callback(null, context),
        (error: Error) => callback(error),
      );
    },
  });
  refusePlain(server);
  server.once("listening", () => {
    const renewal = setInterval(() => {
      own().then(
        (pair) => server.setSecureContext(pair),
        () => undefined, // the one in use is good for as long again
      );
    }, renewalInterval).unref();
    server.once("close", () => clearInterval(renewal));
  });
  return server;
}

/** Milliseconds. A leaf lives for weeks; the authority may be another one sooner. */
const renewalInterval = 60 * 60 * 1000;

function refuseExpectation(_request: IncomingMessage, response: ServerResponse): void {
  respondWithError(
    response,
    new RegistryError(417, "UNSUPPORTED", "the only supported expectation is 100-continue"),
  );
}

async function stop(server: Server, connections: Connections, grace: number): Promise<void> {
  const closed = once(server, "close");
  server.close();
  connections.finish();
  const end = setTimeout(() => connections.destroy(), grace);
  await closed;
  clearTimeout(end);
}
