import { IncomingMessage, type RequestListener, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { FairTurns, Sender } from "./fair-turns.ts";

/** Knows which connections of a server are open, and lets one request at a time be under way on each. */
export interface ConnectionTracker {
  /**
   * Makes a handler that gets the requests of each connection one after the other. Those that a client sends without
   * waiting for the response before (pipelining, RFC 9112, section 9.3.2) wait, most of them unread: the socket is
   * paused. A connection is ended where more than {@link maxWaiting} came in one piece, since no registry client does
   * that. The server has to make its requests of the class {@link PacedRequest}.
   */
  inTurn(handler: RequestListener): RequestListener;
  /** Whether the head of a response is sent on a connection, and its end is not. */
  isResponding(socket: Socket): boolean;
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

/** What a tracker needs to know, and is to tell, of the connections of a server. */
export interface ConnectionTrackerOptions {
  /** When requests start. */
  readonly turns: FairTurns;
  /** Who sends the requests of a connection. */
  readonly senderOf: (socket: Socket) => Sender;
  /** A request, or a CONNECT, has its turn on a connection, or nothing is under way on it any more. */
  readonly busy?: (socket: Socket, isBusy: boolean) => void;
  /** A connection is ended since its client pipelines too much. */
  readonly pipelined?: () => void;
}

/** Requests of one connection that may wait for their turn. Whatever is not read yet does not count. */
export const maxWaiting = 16;

/** Connections on which so many requests wait that a further one ends them. */
const full = new WeakSet<Socket>();

/**
 * A request of a server that a {@link ConnectionTracker} looks after. Some two thousand small ones fit into what Node
 * reads at once, and parsing one costs as much as answering it. Only an upgrade has Node stop in the middle, so a request
 * on a connection where too many wait already looks like one. No other upgrades: HTTP/1.1 is all there is.
 */
export class PacedRequest extends IncomingMessage {
  /** Whether too many waited when its head was read. */
  declare isExcess: boolean | undefined;

  get upgrade(): boolean {
    return this.method === "CONNECT" || this.isExcess === true;
  }

  /** Called while a head is read. What the client has asked for does not matter. */
  set upgrade(_asked: unknown) {
    this.isExcess = full.has(this.socket);
  }
}

/** What is under way on a connection that carries HTTP. */
interface Exchanges {
  /** The response of the request that has its turn. */
  current: ServerResponse | undefined;
  readonly waiting: (() => void)[];
  /** Whether the next one gets its turn once other connections had theirs. */
  isNextDue: boolean;
  /** Whether the socket is paused for the sake of those that wait. */
  isHeld: boolean;
}

/**
 * Tracks the connections of a server, from before it listens. Node's own closeIdleConnections and closeAllConnections
 * know neither a connection that has sent nothing yet, as Go's clients keep in reserve, nor one in the middle of a
 * TLS handshake.
 */
export function createConnectionTracker(
  server: Server,
  { turns, senderOf, busy, pipelined }: ConnectionTrackerOptions,
): ConnectionTracker {
  /** Connections that the kernel has accepted. */
  const accepted = new Set<Socket>();
  /** Sockets that carry HTTP: the accepted ones, or the TLS inside them. */
  const carrying = new Map<Socket, Exchanges>();
  let isFinishing = false;
  let lastConnectionAt = 0;

  const begin = (socket: Socket, exchanges: Exchanges, response: ServerResponse): void => {
    if (isFinishing) response.setHeader("connection", "close");
    exchanges.current = response;
    busy?.(socket, true);
    response.once("close", () => {
      exchanges.current = undefined;
      if (!socket.destroyed) goOn(socket, exchanges);
    });
  };
  const goOn = (socket: Socket, exchanges: Exchanges): void => {
    const next = exchanges.waiting.shift();
    full.delete(socket);
    if (exchanges.isHeld && exchanges.waiting.length === 0) {
      exchanges.isHeld = false;
      socket.resume();
    }
    if (next !== undefined) {
      exchanges.isNextDue = true;
      setImmediate(() => {
        exchanges.isNextDue = false;
        if (!socket.destroyed) next();
      });
      return;
    }
    busy?.(socket, false);
    if (isFinishing) socket.destroySoon();
  };
  const wait = (socket: Socket, exchanges: Exchanges, start: () => void): void => {
    exchanges.waiting.push(start);
    if (exchanges.waiting.length >= maxWaiting) full.add(socket);
    if (exchanges.isHeld) return;
    exchanges.isHeld = true;
    socket.pause();
  };
  server.on("upgrade", ({ socket }: IncomingMessage) => {
    pipelined?.();
    socket.destroy();
  });
  server.on("connection", (socket: Socket) => {
    lastConnectionAt = performance.now();
    accepted.add(socket);
    socket.once("close", () => accepted.delete(socket));
  });
  const established = "setSecureContext" in server ? "secureConnection" : "connection";
  server.on(established, (socket: Socket) => {
    const exchanges: Exchanges = {
      current: undefined,
      waiting: [],
      isNextDue: false,
      isHeld: false,
    };
    carrying.set(socket, exchanges);
    socket.once("close", () => carrying.delete(socket));
    // Whoever reads the body of a request resumes the socket, although that body is whole already.
    socket.on("resume", () => {
      if (exchanges.isHeld) socket.pause();
    });
    if (isFinishing) socket.destroySoon(); // its handshake was under way
  });
  return {
    inTurn: (handler) => (request, response) => {
      const { socket } = request;
      const exchanges = carrying.get(socket);
      if (exchanges === undefined || socket.destroyed) return;
      const start = (): void => {
        begin(socket, exchanges, response);
        turns.enter(senderOf(socket), () => {
          if (!socket.destroyed) handler(request, response);
        });
      };
      if (exchanges.current === undefined && !exchanges.isNextDue) start();
      else wait(socket, exchanges, start);
    },
    isResponding: (socket) => carrying.get(socket)?.current?.headersSent === true,
    finish() {
      isFinishing = true;
      for (const [socket, { current, isNextDue }] of carrying) {
        if (current === undefined && !isNextDue) socket.destroySoon();
        else if (current?.headersSent === false) current.setHeader("connection", "close");
      }
    },
    destroy() {
      for (const socket of accepted) socket.destroy();
    },
    handOver(socket) {
      const { current, isNextDue = false } = carrying.get(socket) ?? {};
      if (current !== undefined || isNextDue) return false;
      busy?.(socket, true);
      return carrying.delete(socket);
    },
    lastConnectionAt: () => lastConnectionAt,
  };
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
