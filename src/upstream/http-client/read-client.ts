import { isIP, type LookupFunction, connect as netConnect, type Socket } from "node:net";
import { type SecureContext, connect as tlsConnect } from "node:tls";
import { errors } from "undici";
import type { BufferBudget } from "./body-buffers.ts";
import type { HttpRequest, SendRequest } from "./http-exchange.ts";
import { requestHead } from "./message-head.ts";
import { type OnRead, ReadConnection } from "./read-connection.ts";

export interface ReadClientOptions {
  readonly lookup: LookupFunction;
  readonly secureContext: SecureContext;
  /** Bytes. */
  readonly maxHeaderBytes: number;
  /** Milliseconds, as those below. */
  readonly connectTimeoutMs: number;
  readonly bodyTimeoutMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly budget: BufferBudget;
  /** Sends what this client does not, and what has got an answer that it does not read. */
  readonly fallback: SendRequest;
}

/** Sends GET and HEAD over connections of its own, and everything else otherwise. */
export interface ReadClient {
  readonly send: SendRequest;
  /** Keeps no connection any more; what is under way goes on, and more may be asked. */
  retire(): void;
  /** Ends all connections; nobody waits for an answer any more. */
  destroy(): void;
}

/** How long it is remembered that an origin answers a kind of request in a way that is not read here. Milliseconds. */
const unsupportedTtlMs = 600_000;
const maxUnsupported = 1_000;

export function createReadClient(options: ReadClientOptions): ReadClient {
  const origins = new Map<string, Origin>();
  const unsupportedUntil = new Map<string, number>();
  let isRetired = false;

  const isUnsupported = (request: HttpRequest): boolean =>
    unsupportedUntil.size > 0 && (unsupportedUntil.get(kindOf(request)) ?? 0) > performance.now();
  const rememberUnsupported = (request: HttpRequest): void => {
    if (unsupportedUntil.size >= maxUnsupported) unsupportedUntil.clear();
    unsupportedUntil.set(kindOf(request), performance.now() + unsupportedTtlMs);
  };
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
      open: (onread, connected) => openSocket(origin, options, onread, connected),
      owner: {
        idle: (kept) => (isRetired ? kept.destroy(retired()) : origin.idle.push(kept)),
        gone(lost, isStale) {
          origin.all.delete(lost);
          origin.idle = origin.idle.filter((other) => other !== lost);
          if (origin.all.size === 0) origins.delete(origin.name);
          // A server that was started anew has closed the others, too; the next attempt must not meet one of them.
          if (isStale) for (const other of origin.idle) other.destroy(retired());
        },
      },
    });
    origin.all.add(connection);
    return connection;
  };
  const destroyAll = (connections: Iterable<ReadConnection>): void => {
    for (const connection of [...connections]) connection.destroy(retired());
  };
  return {
    send(request, handler) {
      const { method, body } = request;
      const isRead = (method === "GET" || method === "HEAD") && body === undefined;
      if (!isRead || isUnsupported(request)) return options.fallback(request, handler);
      const text = requestHead(request);
      const origin = originOf(request);
      const connection = origin.idle.pop() ?? open(origin);
      const unsupported = (): void => {
        rememberUnsupported(request);
        abort = options.fallback(request, handler);
      };
      const task = { request, text, handler, unsupported };
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

const retired = (): Error => new errors.ClientDestroyedError();

interface Origin {
  /** `https://harbor.test:8443` */
  readonly name: string;
  /** The one that was used last comes last. */
  idle: ReadConnection[];
  readonly all: Set<ReadConnection>;
  /** For the next TLS handshake to be a short one. */
  session: Buffer | undefined;
}

/** Registries answer requests of one kind in one way: blobs with their length, lists often in chunks. */
function kindOf({ method, url }: HttpRequest): string {
  const [, kind = ""] = /\/(manifests|blobs|tags|referrers)\/[^/]*$/.exec(url.pathname) ?? [];
  return `${method} ${url.origin} ${kind}`;
}

function openSocket(
  origin: Origin,
  { lookup, secureContext }: ReadClientOptions,
  onread: OnRead,
  connected: () => void,
): Socket {
  const { protocol, hostname, port } = new URL(origin.name);
  const host = hostname.replace(/^\[|\]$/g, "");
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
  if (!isTls) return netConnect(options, connected);
  const socket = tlsConnect(
    {
      ...options,
      secureContext,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(origin.session === undefined ? {} : { session: origin.session }),
      ALPNProtocols: ["http/1.1"],
    },
    connected,
  );
  // The name is not checked again in a handshake that goes on with a session, so none is kept of a stranger.
  return socket.on("session", (session) => {
    if (socket.authorized) origin.session = session;
  });
}
