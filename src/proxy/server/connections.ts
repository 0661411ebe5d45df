import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** Knows which connections of a server are open, and on which of them a response is under way. */
export interface ConnectionTracker {
  /** Ends the connections on which nothing is under way at once, and each other one after its response. */
  finish(): void;
  /** Ends all connections at once. */
  destroy(): void;
  /**
   * Leaves a connection to its caller, who has to end it in time: `finish` does not look after it any more, `destroy`
   * still ends it.
   * @returns whether it could be handed over; false where a response to an earlier request is still under way on it
   */
  handOver(socket: Socket): boolean;
  /** When the last connection came, in milliseconds of `performance.now`; 0 before the first. */
  lastConnectionAt(): number;
}

/**
 * Tracks the connections of a server, from before it listens. Node's own closeIdleConnections and closeAllConnections
 * know neither a connection that has sent nothing yet, as Go's clients keep in reserve, nor one in the middle of a
 * TLS handshake.
 */
export function createConnectionTracker(server: Server): ConnectionTracker {
  /** Connections that the kernel has accepted. */
  const accepted = new Set<Socket>();
  /** Sockets that carry HTTP: the accepted ones, or the TLS inside them. */
  const carrying = new Set<Socket>();
  const underWay = new Set<ServerResponse>();
  let isFinishing = false;
  let lastConnectionAt = 0;

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
    lastConnectionAt = performance.now();
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
    lastConnectionAt: () => lastConnectionAt,
  };
}

function keepIn(sockets: Set<Socket>, socket: Socket): void {
  sockets.add(socket);
  socket.once("close", () => sockets.delete(socket));
}

/**
 * Keeps one address from taking all connections of a server: once it has `maxPerAddress` of them, further ones are
 * closed. Requests are limited by subject, but a connection without a request has only an address. Each Pod has an
 * address of its own, unless the network hides it behind its node, so the limit has to be generous.
 */
export function limitConnections(server: Server, maxPerAddress: number): void {
  const open = new Map<string, number>();
  server.prependListener("connection", (socket: Socket) => {
    const address = socket.remoteAddress ?? "";
    const count = open.get(address) ?? 0;
    if (count >= maxPerAddress) {
      socket.destroy();
      return;
    }
    open.set(address, count + 1);
    socket.once("close", () => {
      const left = (open.get(address) ?? 1) - 1;
      if (left > 0) open.set(address, left);
      else open.delete(address);
    });
  });
}

/** Watches a response until it is closed. */
export type EndWhenStalled = (response: ServerResponse) => void;

/**
 * Ends the connections of clients that stop reading their response. A client that unpacks a layer while it arrives may
 * pause for a while. One that never goes on would keep a connection to the registry open for ever, too.
 * @param timeoutMs how long a client may take not a byte of what waits for it; it may take twice as long until that is
 *   noticed
 * @returns the function to call with each response
 */
export function createStallWatch(timeoutMs: number): EndWhenStalled {
  /** Bytes that each client had taken at the last look; undefined where nothing waited for it. */
  const taken = new Map<ServerResponse, number | undefined>();
  let timer: NodeJS.Timeout | undefined;
  const check = (): void => {
    for (const [response, before] of taken) {
      const now = bytesTaken(response.req.socket);
      if (now !== undefined && now === before) response.req.socket.destroy();
      taken.set(response, now);
    }
    if (taken.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
  return (response) => {
    taken.set(response, undefined);
    response.once("close", () => taken.delete(response));
    timer ??= setInterval(check, timeoutMs).unref();
  };
}

/** Bytes that a client has taken; undefined where none wait for it. `bytesWritten` counts what was handed to the socket. */
const bytesTaken = ({ bytesWritten, writableLength }: Socket): number | undefined =>
  writableLength > 0 ? bytesWritten - writableLength : undefined;
