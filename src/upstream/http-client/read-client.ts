/** An HTTP/1.1 client for GET and HEAD that passes bodies with the least work. All else goes by another client. */
import { isIP, type LookupFunction, connect as netConnect, type Socket } from "node:net";
import { type SecureContext, connect as tlsConnect } from "node:tls";
import { LRUCache } from "lru-cache";
import { errors } from "undici";
import type { BufferBudget } from "./body-buffers.ts";
import type { HttpRequest, SendRequest } from "./http-exchange.ts";
import { formatRequestHead } from "./message-head.ts";
import { type OnRead, ReadConnection } from "./read-connection.ts";

export interface ReadClientOptions {
  /** Resolves the host of an origin, for `net.connect` and `tls.connect`. */
  readonly lookup: LookupFunction;
  /** What is trusted in TLS. */
  readonly secureContext: SecureContext;
  /** Of the head of a response. */
  readonly maxHeaderBytes: number;
  /** Until a request may be written. */
  readonly connectTimeoutMs: number;
  /** Without a byte of the body; the time in which the consumer holds it back does not count. */
  readonly bodyTimeoutMs: number;
  /** How long a connection is kept without a request. */
  readonly keepAliveTimeoutMs: number;
  readonly budget: BufferBudget;
  /** Sends the requests that this client does not, and sends those again whose response it does not read. */
  readonly fallback: SendRequest;
}

/** A client that keeps connections to any number of origins, and sends one request at a time over each. */
export interface ReadClient {
  readonly send: SendRequest;
  /** Keeps no connection any more. Exchanges that are under way go on, and more may be started. */
  retire(): void;
  /** Ends all connections. Handlers of exchanges that are under way get an error. */
  destroy(): void;
}

/** How long this client remembers that an origin answers a kind of request in a way that it does not read. */
const unsupportedTtlMs = 600_000;
/** A client has some ten kinds for each origin. An LRUCache takes its memory at once, and there are hundreds of clients. */
const maxUnsupported = 200;

/**
 * Makes a client for GET and HEAD that reads plain HTTP/1.1 alone: a response with one Content-Length, or of a kind that
 * has no body. Where a response is anything else, the request is sent once more by `fallback`, and so are all of its kind
 * for some time. `fallback` sends all other requests, too.
 */
export function createReadClient(options: ReadClientOptions): ReadClient {
  // A plain Map: an origin is forgotten with its last connection, and none may be evicted that has one.
  const origins = new Map<string, Origin>();
  /** Kinds of requests whose responses are not read here. */
  const unsupported = new LRUCache<string, true>({ max: maxUnsupported, ttl: unsupportedTtlMs });
  let isRetired = false;

  const isUnsupported = (request: HttpRequest): boolean =>
    unsupported.size > 0 && unsupported.get(requestKind(request)) === true;
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
      open: (onread, onConnected) => openSocket(origin, options, onread, onConnected),
      owner: {
        onIdle: (kept) =>
          isRetired ? kept.destroy(createDestroyedError()) : origin.idle.push(kept),
        onGone(lost, isStale) {
          origin.all.delete(lost);
          origin.idle = origin.idle.filter((other) => other !== lost);
          if (origin.all.size === 0) origins.delete(origin.name);
          // A server that was restarted has closed the others, too. The next attempt must not get one of them.
          if (isStale) for (const other of origin.idle) other.destroy(createDestroyedError());
        },
      },
    });
    origin.all.add(connection);
    return connection;
  };
  const destroyAll = (connections: Iterable<ReadConnection>): void => {
    for (const connection of [...connections]) connection.destroy(createDestroyedError());
  };
  return {
    send(request, handler) {
      const { method, body } = request;
      const isRead = (method === "GET" || method === "HEAD") && body === undefined;
      if (!isRead || isUnsupported(request)) return options.fallback(request, handler);
      const headText = formatRequestHead(request);
      const origin = originOf(request);
      const connection = origin.idle.pop() ?? open(origin);
      const onUnsupported = (): void => {
        unsupported.set(requestKind(request), true);
        abort = options.fallback(request, handler);
      };
      const task = { request, headText, handler, onUnsupported };
      let abort = (reason: Error): void => connection.abort(task, reason);
      connection.begin(task);
      return (reason) => abort(reason);
    },
    retire() {
      isRetired = true;
      for (const { idle } of origins.values()) destroyAll(idle);
    },
    destroy() {
      isRetired = true;
      for (const { all } of origins.values()) destroyAll(all);
    },
  };
}

const createDestroyedError = (): Error => new errors.ClientDestroyedError();

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

/** Servers answer requests of one kind in one way: registries send blobs with their length, and lists often in chunks. */
function requestKind({ method, url }: HttpRequest): string {
  const [, kind = ""] = /\/(manifests|blobs|tags|referrers)\/[^/]*$/.exec(url.pathname) ?? [];
  return `${method} ${url.origin} ${kind}`;
}

function openSocket(
  origin: Origin,
  { lookup, secureContext }: ReadClientOptions,
  onread: OnRead,
  onConnected: () => void,
): Socket {
  const { protocol, hostname, port } = new URL(origin.name);
  const host = hostname.replace(/^\[|\]$/g, ""); // a URL has an IPv6 address in brackets, and a socket without
  const isTls = protocol === "https:";
  const options = {
    host,
    port: Number(port || (isTls ? 443 : 80)),
    lookup,
    onread: onread as { buffer: OnRead["buffer"]; callback: OnRead["callback"] },
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: 60_000,
  };
  if (!isTls) return netConnect(options, onConnected);
  const socket = tlsConnect(
    {
      ...options,
      secureContext,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(origin.session === undefined ? {} : { session: origin.session }),
      ALPNProtocols: ["http/1.1"],
    },
    onConnected,
  );
  // A handshake that goes on with a session does not check the name again, so a session is kept of a verified server alone.
  return socket.on("session", (session) => {
    if (socket.authorized) origin.session = session;
  });
}
