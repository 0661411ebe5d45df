import { isDigest, peekInto, type Repositories } from "./fake-registry-content.ts";
import type { Exchange } from "./fake-registry-exchange.ts";
import type { Features } from "./fake-registry-features.ts";

export interface ReadOptions {
  readonly repositories: Repositories;
  readonly features: Features;
}

/** What the registry does with blobs, by method. */
export async function answerBlob(
  { repositories, features }: ReadOptions,
  exchange: Exchange,
): Promise<void> {
  const { target, request } = exchange;
  if (!isDigest(target.reference)) return exchange.fail(400, "DIGEST_INVALID");
  const { blobs } = peekInto(repositories, target.repository);
  if (request.method === "DELETE" && !features.deletes) return exchange.fail(405, "UNSUPPORTED");
  const blob = blobs.get(target.reference);
  if (blob === undefined) return exchange.fail(404, "BLOB_UNKNOWN");
  if (request.method === "GET" || request.method === "HEAD") return sendBlob(exchange, blob);
  if (request.method !== "DELETE") return exchange.fail(405, "UNSUPPORTED");
  blobs.delete(target.reference);
  exchange.send(202, {});
}

/** RFC 9110, section 14: one range is served, several are answered with the whole, as registries do. */
async function sendBlob(exchange: Exchange, blob: Buffer): Promise<void> {
  const { headers } = exchange.request;
  const etag = `"${exchange.target.reference}"`;
  const common = {
    "Content-Type": "application/octet-stream",
    "Docker-Content-Digest": exchange.target.reference,
    "Accept-Ranges": "bytes",
    ETag: etag,
  };
  if (headers["if-none-match"] === etag) return exchange.send(304, common);
  const applies = headers["if-range"] === undefined || headers["if-range"] === etag;
  const range = applies ? readRange(headers.range, blob.length) : undefined;
  if (range === undefined) return exchange.send(200, common, blob);
  if (range === "unsatisfiable") {
    const unsatisfied = { ...common, "Content-Range": `bytes */${blob.length}` };
    return exchange.send(416, unsatisfied);
  }
  const { first, last } = range;
  const contentRange = `bytes ${first}-${last}/${blob.length}`;
  exchange.send(206, { ...common, "Content-Range": contentRange }, blob.subarray(first, last + 1));
}

function readRange(
  header: string | undefined,
  size: number,
): { first: number; last: number } | "unsatisfiable" | undefined {
  const [, from = "", to = ""] = /^bytes=(\d*)-(\d*)$/.exec(header ?? "") ?? [];
  if (from === "" && to === "") return undefined;
  const first = from === "" ? Math.max(0, size - Number(to)) : Number(from);
  const last = from === "" || to === "" ? size - 1 : Math.min(Number(to), size - 1);
  return first <= last ? { first, last } : "unsatisfiable";
}

/** The tags of a repository, in pages of `n`. */
export async function answerTags({ repositories }: ReadOptions, exchange: Exchange): Promise<void> {
  const { target } = exchange;
  const repository = repositories.get(target.repository);
  if (repository === undefined) return exchange.fail(404, "NAME_UNKNOWN");
  const tags = [...repository.tags.keys()];
  return sendPage(tags, exchange, (page) => ({ name: target.repository, tags: page }));
}

/** The names of all repositories, in pages of `n`. */
export async function answerCatalog(
  { repositories }: ReadOptions,
  exchange: Exchange,
): Promise<void> {
  return sendPage([...repositories.keys()], exchange, (page) => ({ repositories: page }));
}

async function sendPage(
  names: readonly string[],
  { path, query, json, fail }: Exchange,
  bodyOf: (page: readonly string[]) => object,
): Promise<void> {
  const last = query.get("last");
  const left = [...names].sort().filter((name) => last === null || name > last);
  const size = Number(query.get("n") ?? left.length);
  if (!Number.isInteger(size) || size < 0) return fail(400, "PAGINATION_NUMBER_INVALID");
  const page = left.slice(0, size);
  const end = page.at(-1);
  if (end === undefined || left.length <= size) return json(200, bodyOf(page));
  const next = `${path}?${new URLSearchParams({ last: end, n: String(size) })}`;
  json(200, bodyOf(page), { Link: `<${next}>; rel="next"` });
}
