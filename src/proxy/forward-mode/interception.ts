import { createServer, type IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { type ConnectionTracker, createConnectionTracker } from "../server/connections.ts";
import type { Handler } from "../server/listener.ts";
import { attachHandler, serverOptions } from "../server/listener.ts";
import type { ServerCertificates } from "../server/server-certificates.ts";
import type { ForwardTarget } from "./forward-target.ts";
import type { ProxyCredential } from "./proxy-credential.ts";

/** What a client has said by its CONNECT; every request inside is judged by it. */
export interface InterceptedConnection {
  readonly target: ForwardTarget;
  readonly credential: ProxyCredential;
}

export interface InterceptionOptions {
  readonly certificates: Pick<ServerCertificates, "contextFor">;
  readonly handler: Handler;
}

/** Speaks TLS with clients in the place of the registry that they have asked for. */
export interface Interception extends Pick<ConnectionTracker, "finish"> {
  /**
   * Gets ready to be that host.
   * @returns takes a connection whose CONNECT was answered, and the bytes that came behind it
   */
  prepare(session: InterceptedConnection): Promise<(socket: Socket, head: Buffer) => void>;
}

/** Of connections that are intercepted. */
const interceptedConnections = new WeakMap<Socket, InterceptedConnection>();

/** What the CONNECT before an intercepted request has said. */
export function interceptedConnectionOf({ socket }: IncomingMessage): InterceptedConnection {
  const session = interceptedConnections.get(socket);
  if (session === undefined) throw new Error("this request did not come through a CONNECT");
  return session;
}

export function createInterception({ certificates, handler }: InterceptionOptions): Interception {
  const server = createServer(serverOptions);
  const connections = createConnectionTracker(server);
  attachHandler(server, handler);
  server.emit("listening"); // It never listens; without this, Node does not look after `headersTimeout`.
  return {
    async prepare(session) {
      const { hostname } = session.target;
      const secureContext = await certificates.contextFor(hostname);
      return (socket, head) => {
        if (head.length > 0) socket.unshift(head); // a client that did not wait for the answer
        const secure = new TLSSocket(socket, {
          isServer: true,
          ...(secureContext && { secureContext }),
          ALPNProtocols: ["http/1.1"],
          SNICallback(name, callback) {
            const isSame = name.toLowerCase() === hostname;
            callback(isSame ? null : new Error("SNI and CONNECT name different hosts"));
          },
        });
        interceptedConnections.set(secure, session);
        server.emit("connection", secure);
      };
    },
    finish() {
      server.close();
      connections.finish();
    },
  };
}
