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
import { type SecureContextOptions, TLSSocket } from "node:tls";
import { maxHeaderBytes } from "../../upstream/upstream.ts";
import { RegistryError, respondWithError } from "../registry-error.ts";
import { respondToClientError, respondToPlainHttp } from "./client-errors.ts";
import {
  type ConnectionLimits,
  defaultConnectionLimits,
  limitConnections,
  type ShedReason,
} from "./connection-limits.ts";
import { type ConnectionTracker, createConnectionTracker, PacedRequest } from "./connections.ts";
import type { FairTurns } from "./fair-turns.ts";
import { type ServerCertificates, tlsOptions } from "./server-certificates.ts";

/** An address to listen at. */
export interface ListenAddress {
  readonly scheme: "http" | "https";
  /** A host name or an IP address without brackets. */
  readonly host: string;
  /** 0 for any port that is free. */
  readonly port: number;
  /** The name in the certificate for clients that send no SNI; `host` by default. */
  readonly certificateName?: string;
  /** The IP addresses in that certificate: whoever connects to one sends no SNI, and looks for the address. */
  readonly certificateAddresses?: CertificateAddresses | undefined;
}

/** IP addresses by which clients reach a listener, which may change while it serves. */
export interface CertificateAddresses {
  current(): readonly string[];
  /** Calls a listener after each change, until the function that it returns is called. */
  onChange(listener: () => void): () => void;
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
  highWaterMark: 16 * 1024, // so that Node reads no second piece of a body, of 64 KiB, that nobody reads yet
  IncomingMessage: PacedRequest,
};

/** Handles a request. It never throws: an error becomes the response. */
export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** Handles a CONNECT. `head` has the bytes that came behind the request on its connection. */
export type ConnectHandler = (request: IncomingMessage, socket: Socket, head: Buffer) => void;

export interface ListenOptions {
  /** Where it says nothing, {@link defaultConnectionLimits} count. */
  readonly connectionLimits?: Partial<ConnectionLimits> | undefined;
  /** Is told of each connection that is ended at a bound. */
  readonly onShed?: ((reason: ShedReason) => void) | undefined;
  readonly handler: Handler;
  readonly onConnect: ConnectHandler;
  readonly certificates: ServerCertificates;
  /** When requests start; all listeners of a proxy have the same. */
  readonly turns: FairTurns;
}

/**
 * Listens for clients.
 * @returns once the port is open
 * @throws the socket's error where the address can't be had
 */
export async function listen(
  { scheme, host, port, certificateName = host, certificateAddresses }: ListenAddress,
  {
    handler,
    onConnect,
    certificates,
    turns,
    connectionLimits,
    onShed = () => undefined,
  }: ListenOptions,
): Promise<Listener> {
  const server =
    scheme === "http"
      ? createServer(serverOptions)
      : await createTlsServer(certificateName, certificateAddresses, certificates);
  const limits = { ...defaultConnectionLimits, ...connectionLimits };
  const shares = limitConnections(server, limits, onShed);
  const connections = createConnectionTracker(server, {
    turns,
    senderOf: shares.senderOf,
    busy: shares.busy,
    pipelined: () => onShed("pipelining"),
  });
  attachHandler(server, connections, handler);
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

/**
 * Has a handler respond to all requests of a server, one at a time on each connection, and this room to what the HTTP
 * parser refuses.
 */
export function attachHandler(
  server: Server,
  connections: ConnectionTracker,
  handler: Handler,
): void {
  const handleInTurn = connections.inTurn(handler);
  server.on("request", handleInTurn);
  server.on("checkContinue", handleInTurn); // the handler says 100 once the request is admitted
  server.on("checkExpectation", connections.inTurn(refuseExpectation));
  server.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) => {
    // What follows a request that is being answered must not get into the body of that response.
    if (connections.isResponding(socket)) socket.destroy();
    else respondToClientError(error, socket);
  });
}

/**
 * A server whose certificate follows the SNI. Clients that connect to an IP address send none (RFC 6066, section 3); they
 * get a certificate for `ownName` and its addresses, renewed every hour and when these change.
 */
async function createTlsServer(
  ownName: string,
  addresses: CertificateAddresses | undefined,
  certificates: ServerCertificates,
): Promise<Server> {
  /** Setting a new pair resets what else a context has, so each has it all. */
  const issueOwn = async (): Promise<SecureContextOptions> => {
    const { certificate, privateKey } = await certificates.issueFor(ownName, addresses?.current());
    return { cert: certificate, key: privateKey, ...tlsOptions };
  };
  const server = createHttpsServer({
    ...serverOptions,
    ...(await issueOwn()),
    handshakeTimeout: handshakeTimeoutMs,
    ALPNProtocols: ["http/1.1"],
    SNICallback(this: unknown, name, callback) {
      const address = this instanceof TLSSocket ? this.remoteAddress : undefined;
      certificates.contextFor(name, address ?? "").then(
        (context) => callback(null, context),
        (error: Error) => callback(error),
      );
    },
  });
  respondToPlainHttp(server);
  server.once("listening", () => {
    const renew = (): void => {
      issueOwn().then(
        (pair) => server.setSecureContext(pair),
        () => undefined, // the one in use is good for as long again
      );
    };
    const renewal = setInterval(renew, renewalIntervalMs).unref();
    const unsubscribe = addresses?.onChange(renew);
    server.once("close", () => {
      clearInterval(renewal);
      unsubscribe?.();
    });
  });
  return server;
}

/** A handshake takes a second on a bad network. Whoever takes longer than this is ended. */
const handshakeTimeoutMs = 30_000;

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
