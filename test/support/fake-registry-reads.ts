import {
  addManifest,
  type Repositories,
  type Repository,
  repositoryIn,
  type StoredManifest,
} from "./fake-registry-content.ts";
import type { Exchange } from "./fake-registry-exchange.ts";
import { sha256 } from "./oci-image.ts";

/** What the registry does with blobs, by method. */
export async function answerBlob(repositories: Repositories, exchange: Exchange): Promise<void> {
  const { target, request } = exchange;
  const { blobs } = repositoryIn(repositories, target.repository);
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

/** What the registry does with manifests, by method. */
export async function answerManifest(
  repositories: Repositories,
  exchange: Exchange,
): Promise<void> {
  const { target, request } = exchange;
  const repository = repositoryIn(repositories, target.repository);
  if (request.method === "PUT") return putManifest(repository, exchange);
  const digest = repository.tags.get(target.reference) ?? target.reference;
  const manifest = repository.manifests.get(digest);
  if (manifest === undefined) return exchange.fail(404, "MANIFEST_UNKNOWN");
  if (request.method === "GET" || request.method === "HEAD") {
    const headers = { "Content-Type": manifest.mediaType, "Docker-Content-Digest": digest };
    return exchange.send(200, headers, manifest.bytes);
  }
  if (request.method !== "DELETE") return exchange.fail(405, "UNSUPPORTED");
  if (repository.tags.delete(target.reference)) return exchange.send(202, {});
  repository.manifests.delete(digest);
  for (const [tag, tagged] of repository.tags) if (tagged === digest) repository.tags.delete(tag);
  exchange.send(202, {});
}

async function putManifest(repository: Repository, exchange: Exchange): Promise<void> {
  const { target, request } = exchange;
  const bytes = await exchange.body();
  const manifest = { bytes, mediaType: request.headers["content-type"] ?? "" };
  if (target.reference.includes(":") && target.reference !== sha256(bytes)) {
    return exchange.fail(400, "DIGEST_INVALID");
  }
  const { config, layers, subject } = readManifest(manifest);
  const blobs = [...(config ? [config] : []), ...(layers ?? [])];
  const missing = blobs.find(({ digest }) => !repository.blobs.has(digest));
  if (missing !== undefined) return exchange.fail(400, "MANIFEST_BLOB_UNKNOWN", missing.digest);
  const digest = addManifest(repository, target.reference, manifest);
  exchange.send(201, {
    Location: `${exchange.basePath}/v2/${target.repository}/manifests/${digest}`,
    "Docker-Content-Digest": digest,
    ...(subject && { "OCI-Subject": subject.digest }),
  });
}

interface ManifestDocument {
  readonly config?: { readonly digest: string };
  readonly layers?: readonly { readonly digest: string }[];
  readonly subject?: { readonly digest: string };
  readonly artifactType?: string;
}

function readManifest({ bytes }: StoredManifest): ManifestDocument {
  try {
    return JSON.parse(bytes.toString());
  } catch {
    return {};
  }
}

/** The referrers of OCI 1.1. */
export async function answerReferrers(
  repositories: Repositories,
  exchange: Exchange,
): Promise<void> {
  const { target, query } = exchange;
  const wanted = query.get("artifactType");
  const manifests = [...repositoryIn(repositories, target.repository).manifests]
    .map(([digest, manifest]) => ({ digest, manifest, document: readManifest(manifest) }))
    .filter(({ document }) => document.subject?.digest === target.reference)
    .filter(({ document }) => wanted === null || document.artifactType === wanted)
    .map(({ digest, manifest: { mediaType, bytes }, document: { artifactType } }) => ({
      mediaType,
      digest,
      size: bytes.length,
      artifactType,
    }));
  const mediaType = "application/vnd.oci.image.index.v1+json";
  exchange.json(
    200,
    { schemaVersion: 2, mediaType, manifests },
    {
      "Content-Type": mediaType,
      ...(wanted !== null && { "OCI-Filters-Applied": "artifactType" }),
    },
  );
}

/** The tags of a repository, in pages of `n`. */
export async function answerTags(repositories: Repositories, exchange: Exchange): Promise<void> {
  const { target } = exchange;
  const repository = repositories.get(target.repository);
  if (repository === undefined) return exchange.fail(404, "NAME_UNKNOWN");
  const { page, headers } = pageOf([...repository.tags.keys()], exchange);
  exchange.json(200, { name: target.repository, tags: page }, headers);
}

/** The names of all repositories, in pages of `n`. */
export async function answerCatalog(repositories: Repositories, exchange: Exchange): Promise<void> {
  const { page, headers } = pageOf([...repositories.keys()], exchange);
  exchange.json(200, { repositories: page }, headers);
}

function pageOf(
  names: readonly string[],
  { path, query }: Exchange,
): { page: readonly string[]; headers: Record<string, string> } {
  const last = query.get("last");
  const left = [...names].sort().filter((name) => last === null || name > last);
  const size = Number(query.get("n") ?? left.length);
  const page = left.slice(0, size);
  const end = page.at(-1);
  if (end === undefined || left.length <= size) return { page, headers: {} };
  const next = `${path}?${new URLSearchParams({ last: end, n: String(size) })}`;
  return { page, headers: { Link: `<${next}>; rel="next"` } };
}
