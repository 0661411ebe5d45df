import { type AddressInfo, createServer, type Socket } from "node:net";
import type { Stoppable } from "./cleanup.ts";
import type { FakeRegistry, Handler, Route } from "./fake-registry.ts";
import type { Undo } from "./hostile-auth.ts";

/** Headers that must not reach a client, and harmless ones that must. */
export const oddHeaders = {
  hidden: {
    "Set-Cookie": "session=of-the-registry; Path=/",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "Alt-Svc": 'h2="elsewhere.test:443"',
    "Public-Key-Pins": 'pin-sha256="d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM="; max-age=100',
    "WWW-Authenticate": 'Bearer realm="http://elsewhere.test/token"',
    "X-Registry-Supports-Signatures": "1",
    "Proxy-Authenticate": "Basic",
    "X-Named-By-Connection": "hop",
    Connection: "keep-alive, X-Named-By-Connection",
  },
  kept: {
    Warning: '299 - "this registry will go away"',
    "RateLimit-Remaining": "99;w=21600",
    "OCI-Chunk-Min-Length": "1024",
    "X-Request-Id": "7",
  },
} as const;

/** Sends all of them with every answer. */
export const sendOddHeaders = (registry: FakeRegistry): Undo =>
  registry.on("* *", ({ response, next }) => {
    const all = { ...oddHeaders.hidden, ...oddHeaders.kept };
    for (const [name, value] of Object.entries(all)) response.setHeader(name, value);
    return next();
  });

/** Response heads of about so many bytes; some registries send 21 KB. */
export const sendHugeHeaders = (registry: FakeRegistry, bytes: number = 21 * 1024): Undo =>
  registry.on("* *", ({ response, next }) => {
    const lines = Math.ceil(bytes / 1024);
    for (let line = 0; line < lines; line++) response.setHeader(`X-Huge-${line}`, "x".repeat(1010));
    return next();
  });

/** Accepts requests and answers nothing, or nothing but a head that promises `bytes`. */
export const neverAnswer = (
  registry: FakeRegistry,
  route: Route,
  head?: { readonly bytes: number },
): Undo =>
  registry.on(route, ({ response }) => {
    if (head === undefined) return;
    response.writeHead(200, { "Content-Length": head.bytes });
    response.flushHeaders();
  });

/** Fails the first requests, then behaves. */
export function failFirst(
  registry: FakeRegistry,
  route: Route,
  failure: {
    readonly times: number;
    readonly status: number;
    readonly headers?: Readonly<Record<string, string>>;
  },
  when?: "before auth",
): Undo {
  let left = failure.times;
  const handler: Handler = ({ response, fail, next }) => {
    if (left-- <= 0) return next();
    for (const [name, value] of Object.entries(failure.headers ?? {})) {
      response.setHeader(name, value);
    }
    return fail(failure.status, failure.status === 429 ? "TOOMANYREQUESTS" : "UNAVAILABLE");
  };
  return registry.on(route, handler, when);
}

/** Accepts connections and says nothing at all, not even in a TLS handshake. */
export async function startSilentServer(): Promise<Stoppable & { readonly host: string }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on("error", () => {}));
    socket.resume().once("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    stop: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}
