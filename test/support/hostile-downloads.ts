import type { FakeRegistry } from "./fake-registry.ts";
import type { Exchange } from "./fake-registry-exchange.ts";
import type { Undo } from "./hostile-auth.ts";

/** How often a behaviour shows before the registry behaves well; for ever where it isn't said. */
export interface HowOften {
  readonly times?: number;
}

/** Blobs end after so many bytes, though Content-Length promises all of them. */
export const truncateBlobs = (registry: FakeRegistry, bytes: number, often?: HowOften): Undo =>
  onBlob(registry, often, (exchange, blob) => {
    const { status, headers, body } = rangeOf(exchange, blob);
    cut(exchange, status, { ...headers, "Content-Length": String(body.length) }, body, bytes);
  });

/** The same with chunked encoding: the last chunk never comes. */
export const breakChunks = (registry: FakeRegistry, bytes: number, often?: HowOften): Undo =>
  onBlob(registry, often, (exchange, blob) => {
    const { status, headers, body } = rangeOf(exchange, blob);
    cut(exchange, status, headers, body, bytes);
  });

/** The connection is reset in the middle of a blob. */
export const resetDownloads = (registry: FakeRegistry, bytes: number, often?: HowOften): Undo =>
  onBlob(registry, often, ({ response, request }, blob) => {
    response.writeHead(200, { "Content-Length": blob.length });
    response.write(blob.subarray(0, bytes), () => request.socket.resetAndDestroy());
  });

/** Blobs come in full, with one bit turned. */
export const corruptBlobs = (registry: FakeRegistry, often?: HowOften): Undo =>
  onBlob(registry, often, (exchange, blob) => {
    const { status, headers, body } = rangeOf(exchange, blob);
    const wrong = Buffer.from(body);
    wrong[wrong.length >> 1] = (wrong[wrong.length >> 1] ?? 0) ^ 1;
    exchange.send(status, headers, wrong);
  });

/** Range is ignored: always 200 and the whole blob. */
export const ignoreRanges = (registry: FakeRegistry): Undo =>
  onBlob(registry, {}, ({ target, send }, blob) =>
    send(200, { "Docker-Content-Digest": target.reference }, blob),
  );

/**
 * A Range gets 416 whose Content-Length is that of the blob, though 14 bytes come: what
 * docker-registry 2.8 does. The connection then stays open, or is closed.
 */
export const lieAbout416 = (registry: FakeRegistry, end: "open" | "close"): Undo =>
  registry.on("GET blob", (exchange) => {
    const blob = blobOf(registry, exchange);
    if (blob === undefined || exchange.request.headers.range === undefined) return exchange.next();
    const headers = { "Content-Length": String(blob.length) };
    const text = Buffer.from("invalid range\n");
    exchange.response.writeHead(416, headers).write(text, () => {
      if (end === "close") exchange.response.destroy();
    });
    return undefined;
  });

/** Blobs redirect to where they are, again and again. */
export const redirectForEver = (registry: FakeRegistry): Undo =>
  registry.on("* blob", ({ path, query, send }) => {
    const hop = Number(query.get("hop") ?? 0) + 1;
    send(307, { Location: `${path}?hop=${hop}` });
  });

/** Blobs redirect to another address, such as another host or plain HTTP. */
export const redirectBlobs = (
  registry: FakeRegistry,
  location: (exchange: Exchange) => string,
  status = 307,
): Undo =>
  registry.on("* blob", (exchange) => exchange.send(status, { Location: location(exchange) }));

/**
 * Blobs lie in a store of their own, behind signed URLs, as cloud registries have it. The store
 * refuses requests that carry a second credential beside the signature, as S3 does.
 */
export function storeBlobsIn(storage: FakeRegistry, registry: FakeRegistry): Undo {
  const signature = "X-Amz-Signature=f00d";
  const undo = [
    registry.on("* blob", ({ target, request, send, next }) => {
      if (request.method !== "GET" && request.method !== "HEAD") return next();
      const { repository, reference } = target;
      return send(307, {
        Location: `${storage.url}/bucket/${repository}/${reference}?${signature}`,
      });
    }),
    storage.on("* /bucket/*", (exchange) => {
      const [, repository = "", digest = ""] =
        /^\/bucket\/(.+)\/([^/]+)$/.exec(exchange.path) ?? [];
      const blob = registry.repository(repository).blobs.get(digest);
      if (exchange.request.headers.authorization !== undefined) {
        return exchange.fail(400, "OnlyOneAuthMechanismAllowed");
      }
      if (exchange.rawQuery !== signature) return exchange.fail(403, "SignatureDoesNotMatch");
      if (blob === undefined) return exchange.fail(404, "NoSuchKey");
      const { status, headers, body } = rangeOf(exchange, blob);
      return exchange.send(status, headers, body);
    }),
  ];
  return () => {
    for (const action of undo) action();
  };
}

function onBlob(
  registry: FakeRegistry,
  { times = Number.POSITIVE_INFINITY }: HowOften = {},
  answer: (exchange: Exchange, blob: Buffer) => void,
): Undo {
  let left = times;
  return registry.on("GET blob", (exchange) => {
    const blob = blobOf(registry, exchange);
    if (blob === undefined || left-- <= 0) return exchange.next();
    return answer(exchange, blob);
  });
}

const blobOf = (registry: FakeRegistry, { target }: Exchange): Buffer | undefined =>
  registry.repository(target.repository).blobs.get(target.reference);

/** What a well-behaved server would answer, for ranges with an open end as those that resume have. */
function rangeOf(
  { request }: Exchange,
  blob: Buffer,
): { status: number; headers: Record<string, string>; body: Buffer } {
  const start = /^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1];
  if (start === undefined)
    return { status: 200, headers: { "Accept-Ranges": "bytes" }, body: blob };
  const range = `bytes ${start}-${blob.length - 1}/${blob.length}`;
  return { status: 206, headers: { "Content-Range": range }, body: blob.subarray(Number(start)) };
}

function cut(
  { response }: Exchange,
  status: number,
  headers: Readonly<Record<string, string>>,
  body: Buffer,
  bytes: number,
): void {
  response.writeHead(status, headers);
  response.write(body.subarray(0, bytes), () => response.destroy());
}
