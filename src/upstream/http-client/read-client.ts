/** An HTTP/1.1 client for requests that can be sent again, which reads bodies with the least work. */
import { isIP, connect as netConnect, type Socket } from "node:net";
import { type SecureContext, type TLSSocket, connect as tlsConnect } from "node:tls";
import { ConnectionError } from "./connection-error.ts";
import {
  checkProxyAnswer,
  connected,
  connectToProxy,
  openTunnel,
  socketOptions,
} from "./egress-tunnel.ts";
import type { RouteTo } from "./guarded-dial.ts";
import type { HttpRequest, SendRequest } from "./http-exchange.ts";
import { asProxyRequest, formatRequestHead, type InvalidResponse } from "./message-head.ts";
import {
  type OnRead,
  type OpenConnection,
  ReadConnection,
  type ReadConnectionOptions,
} from "./read-connection.ts";
import { delayWriteErrors } from "./write-errors.ts";

export interface ReadClientOptions extends Omit<ReadConnectionOptions, "open" | "isTls" | "owner"> {
  /** Judges the host of an origin, and finds the way to it. */
  readonly routeTo: RouteTo;
  /** How long each step may take until a request may be written: the connection to the host, or to a company's proxy, and its tunnel. */
  readonly connectTimeoutMs: number;
  /** What a host is trusted by in TLS, and what it is shown. */
  readonly secureContextFor: (hostname: string) => SecureContext;
}

/** A client that keeps connections to any number of origins, and sends one request at a time over each. */
export interface ReadClient {
  readonly send: SendRequest;
  /**
   * Keeps no connection any more. Exchanges that are under way go on, and more may be started.
   * @param onEmpty is called whenever the last connection has ended; at once where there is none
   */
  retire(onEmpty?: () => void): void;
  /** Ends all connections. Handlers of exchanges that are under way get an error. */
  destroy(): void;
}

/**
 * Connections without a request that a client keeps. A registry may redirect each request to another port, and as many
 * may come as a connector may have under way.
 */
const maxIdle = 256;

/**
 * Makes a client for requests whose body is held, or that have none. It reads every response of HTTP/1.1 and 1.0 that can
 * be read in one way alone. No request is sent twice for the sake of its response: what can't be read is an error
 * ({@link InvalidResponse}), since a second request would count twice against a rate limit, and a presigned URL may be
 * good for one.
 */
export function createReadClient(options: ReadClientOptions): ReadClient {
  // A plain Map: an origin is forgotten with its last connection, and none may be evicted that has one.
  const origins = new Map<string, Origin>();
  /** Connections without a request, the one that was used longest ago first. */
  const idle = new Set<ReadConnection>();
  let isRetired = false;
  let onEmpty = (): void => undefined;

  const originOf = ({ url }: HttpRequest): Origin => {
    const known = origins.get(url.origin);
    if (known !== undefined) return known;
    const origin: Origin = { name: url.origin, idle: [], all: new Set(), session: undefined };
    origins.set(origin.name, origin);
    return origin;
  };
  const open = (origin: Origin): ReadConnection => {
    const connection = new ReadConnection({
      ...options,
      isTls: origin.name.startsWith("https:"),
      open: (onread, signal) => openConnection(origin, options, onread, signal),
      owner: {
        onIdle(kept) {
          if (isRetired) {
            kept.destroy(createDestroyedError());
            return;
          }
          origin.idle.push(kept);
          const [oldest] = idle.add(kept);
          if (idle.size > maxIdle) oldest?.destroy(createDestroyedError());
        },
        onGone(lost, isStale) {
          idle.delete(lost);
          origin.all.delete(lost);
          origin.idle = origin.idle.filter((other) => other !== lost);
          if (origin.all.size === 0) origins.delete(origin.name);
          if (origins.size === 0) onEmpty();
          // A server that was restarted has closed the others, too. The next attempt must not get one of them.
          if (isStale) destroyAll(origin.idle);
        },
      },
    });
    origin.all.add(connection);
    return connection;
  };
  return {
    send(request, handler) {
      const headText = formatRequestHead(request);
      const origin = originOf(request);
      const connection = origin.idle.pop() ?? open(origin);
      idle.delete(connection);
      const task = { request, headText, handler };
      connection.begin(task);
      return (reason) => connection.abort(task, reason);
    },
    retire(onEnd = () => undefined) {
      isRetired = true;
      for (const { idle } of origins.values()) destroyAll(idle);
      onEmpty = onEnd;
      if (origins.size === 0) onEmpty();
    },
    destroy() {
      isRetired = true;
      for (const { all } of origins.values()) destroyAll(all);
    },
  };
}

function destroyAll(connections: Iterable<ReadConnection>): void {
  for (const connection of [...connections]) connection.destroy(createDestroyedError());
}

const createDestroyedError = (): Error => new ConnectionError("CLIENT_DESTROYED");

/** A scheme, host and port, with the connections to it. It is forgotten with its last connection. */
interface Origin {
  /** As `URL.origin` has it: `https://harbor.test:8443`. */
  readonly name: string;
  /** Connections without a request, of which the last one was used last. */
  idle: ReadConnection[];
  readonly all: Set<ReadConnection>;
  /** The TLS session, with which the next handshake is a short one. */
  session: Buffer | undefined;
}

/**
 * Opens a connection on which requests to an origin may be written: with TLS, that is once the server's certificate is
 * verified.
 * @throws the error of the connection; EgressError; the signal's reason
 */
async function openConnection(
  origin: Origin,
  { routeTo, secureContextFor, connectTimeoutMs: timeoutMs }: ReadClientOptions,
  onread: OnRead,
  signal: AbortSignal,
): Promise<OpenConnection> {
  const { protocol, hostname: urlHost, port: urlPort } = new URL(origin.name);
  const hostname = urlHost.replace(/^\[|\]$/g, ""); // a URL has an IPv6 address in brackets, and a socket without
  const isTls = protocol === "https:";
  const port = Number(urlPort || (isTls ? 443 : 80));
  const dial = { timeoutMs, signal };
  const route = routeTo(hostname, port);
  if (route instanceof Error) throw route;
  const tls = {
    host: hostname, // the certificate has to be for it, whoever the socket below leads to
    secureContext: secureContextFor(hostname),
    ...(isIP(hostname) === 0 ? { servername: hostname } : {}),
    ...(origin.session === undefined ? {} : { session: origin.session }),
    ALPNProtocols: ["http/1.1"],
  };
  if (typeof route === "function") {
    const options = { host: hostname, port, lookup: route, ...socketOptions(onread) };
    const socket = isTls
      ? keepSession(tlsConnect({ ...options, ...tls }), origin)
      : netConnect(options);
    return { socket: await connected(delayed(socket), isTls ? "secureConnect" : "connect", dial) };
  }
  const { proxy } = route;
  if (!isTls) {
    await route.admit();
    const authorization = await proxy.login.take();
    const socket = await connectToProxy(proxy, { ...dial, onread });
    return {
      socket: delayed(socket),
      inAbsoluteForm: (headText) => asProxyRequest(headText, origin.name, authorization),
      checkHead: (head) => checkProxyAnswer(proxy, authorization, head),
    };
  }
  const tunnel = await openTunnel(route, { hostname, port }, dial);
  const socket = keepSession(tlsConnect({ socket: tunnel, ...tls }), origin);
  readInto(socket, onread); // a socket on top of another one knows no `onread`
  return { socket: await connected(delayed(socket), "secureConnect", dial) };
}

/** A handshake that goes on with a session does not check the name again, so a session is kept of a verified server alone. */
function keepSession(socket: TLSSocket, origin: Origin): TLSSocket {
  socket.on("session", (session) => {
    if (socket.authorized) origin.session = session;
  });
  return socket;
}

/** Hands the bytes of a stream over as a socket with the option `onread` does. */
function readInto(socket: Socket, { buffer, callback }: OnRead): void {
  socket.on("data", (chunk: Buffer) => {
    for (let begin = 0; begin < chunk.length; ) {
      const into = buffer();
      const length = chunk.copy(into, 0, begin);
      begin += length;
      if (!callback(length, into)) socket.pause();
    }
  });
}

/** A response that comes before all of a body is written is read, whatever becomes of the rest. */
function delayed(socket: Socket): Socket {
  delayWriteErrors(socket);
  return socket;
}
