import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** The connections of a server. */
export interface Connections {
  /** Ends those on which nothing is under way, and the others once their answer is out. */
  finish(): void;
  /** Ends all of them. */
  destroy(): void;
  /**
   * Leaves one to somebody else who ends it in time; `destroy` ends it, too.
   * @returns false where a request before it is still under way
   */
  handOver(socket: Socket): boolean;
  /** When the last one came, as `performance.now` tells time; 0 before the first. */
  lastAt(): number;
}

/**
 * Follows a server's connections. Node's own closeIdleConnections and closeAllConnections know neither one
 * that has sent nothing yet, as Go's clients keep in reserve, nor one in the middle of a TLS handshake.
 */
export function followConnections(server: Server): Connections {
  /** What the kernel has accepted. */
  const accepted = new Set<Socket>();
  /** What carries HTTP: the same, or the TLS inside. */
  const carrying = new Set<Socket>();
  const underWay = new Set<ServerResponse>();
  let isFinishing = false;
  let lastAt = 0;

  const isBusy = (socket: Socket): boolean => {
    for (const { req } of underWay) if (req.socket === socket) return true;
    return false;
  };
  const endIfIdle = (socket: Socket): void => {
    if (!isBusy(socket)) socket.destroySoon();
  };
  const begin = (_request: IncomingMessage, response: ServerResponse): void => {
    const { socket } = response.req;
    if (isFinishing) response.setHeader("connection", "close");
    underWay.add(response);
    response.once("close", () => {
      underWay.delete(response);
      if (isFinishing) endIfIdle(socket);
    });
  };
  for (const event of ["request", "checkContinue", "checkExpectation"]) server.on(event, begin);
  server.on("connection", (socket: Socket) => {
    lastAt = performance.now();
    keepIn(accepted, socket);
  });
  const established = "setSecureContext" in server ? "secureConnection" : "connection";
  server.on(established, (socket: Socket) => {
    keepIn(carrying, socket);
    if (isFinishing) socket.destroySoon(); // its handshake was under way
  });
  return {
    finish() {
      isFinishing = true;
      for (const response of underWay) {
        if (!response.headersSent) response.setHeader("connection", "close");
      }
      for (const socket of carrying) endIfIdle(socket);
    },
    destroy() {
      for (const socket of accepted) socket.destroy();
    },
    handOver: (socket) => !isBusy(socket) && carrying.delete(socket),
    lastAt: () => lastAt,
  };
}

function keepIn(sockets: Set<Socket>, socket: Socket): void {
  sockets.add(socket);
  socket.once("close", () => sockets.delete(socket));
}

/**
 * Lets nobody take all of a server's connections: further ones from an address that has so many are ended. Requests are
 * counted by who asks; connections that ask nothing have only an address. Pods have one each, unless the
 * network hides them behind their node, so it is a generous number.
 */
export function limitConnections(server: Server, mostPerAddress: number): void {
  const open = new Map<string, number>();
  server.prependListener("connection", (socket: Socket) => {
    const address = socket.remoteAddress ?? "";
    const before = open.get(address) ?? 0;
    if (before >= mostPerAddress) {
      socket.destroy();
      return;
    }
    open.set(address, before + 1);
    socket.once("close", () => {
      const left = (open.get(address) ?? 1) - 1;
      if (left > 0) open.set(address, left);
      else open.delete(address);
    });
  });
}
