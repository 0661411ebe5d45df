import { createServer, type IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { type ConnectionTracker, createConnectionTracker } from "../server/connections.ts";
import type { FairTurns } from "../server/fair-turns.ts";
import type { Handler } from "../server/listener.ts";
import { attachHandler, serverOptions } from "../server/listener.ts";
import { type ServerCertificates, tlsOptions } from "../server/server-certificates.ts";
import type { ForwardTarget } from "./forward-target.ts";
import type { ProxyCredential } from "./proxy-credential.ts";

/** The CONNECT of an intercepted connection. Every request inside is checked against it. */
export interface InterceptedConnection {
  readonly target: ForwardTarget;
  readonly credential: ProxyCredential;
  /** Who has asked for it. */
  readonly subject: string;
}

export interface InterceptionOptions {
  readonly certificates: Pick<ServerCertificates, "contextFor">;
  /** Handles the requests inside; {@link interceptedConnectionOf} has their CONNECT. */
  readonly handler: Handler;
  /** When requests start. */
  readonly turns: FairTurns;
}

/** Speaks TLS with clients in the place of the registry that their CONNECT names. */
export interface Interception extends Pick<ConnectionTracker, "finish"> {
  /**
   * Prepares the certificate for a connection.
   * @returns a function that takes over the connection once its CONNECT was answered, with the bytes that came behind it
   */
  prepare(connection: InterceptedConnection): Promise<(socket: Socket, head: Buffer) => void>;
}

/** The CONNECT of each TLS connection that is intercepted. */
const interceptedConnections = new WeakMap<Socket, InterceptedConnection>();

/** The CONNECT that an intercepted request came through. */
export function interceptedConnectionOf({ socket }: IncomingMessage): InterceptedConnection {
  const connection = interceptedConnections.get(socket);
  if (connection === undefined) throw new Error("this request did not come through a CONNECT");
  return connection;
}

/** Creates a server that never listens: it gets the connections of CONNECT requests. */
export function createInterception({
  certificates,
  handler,
  turns,
}: InterceptionOptions): Interception {
  const server = createServer(serverOptions);
  const tracker = createConnectionTracker(server, {
    turns,
    senderOf: (socket) => {
      const subject = interceptedConnections.get(socket)?.subject;
      return { name: subject ?? "", hasIdentity: subject !== undefined };
    },
  });
  attachHandler(server, tracker, handler);
  server.emit("listening"); // It never listens; without this event, Node does not enforce `headersTimeout`.
  return {
    async prepare(connection) {
      const { target, subject } = connection;
      const { hostname } = target;
      const secureContext = await certificates.contextFor(hostname, subject);
      return (socket, head) => {
        if (head.length > 0) socket.unshift(head); // a client that did not wait for the response
        const secure = new TLSSocket(socket, {
          isServer: true,
          ...tlsOptions,
          ...(secureContext && { secureContext }),
          ALPNProtocols: ["http/1.1"],
          SNICallback(name, callback) {
            const isSame = name.toLowerCase() === hostname;
            callback(isSame ? null : new Error("SNI and CONNECT name different hosts"));
          },
        });
        interceptedConnections.set(secure, connection);
        server.emit("connection", secure);
      };
    },
    finish() {
      server.close();
      tracker.finish();
    },
  };
}
