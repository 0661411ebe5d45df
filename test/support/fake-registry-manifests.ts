import {
  addManifest,
  isDigest,
  isDigestOf,
  peekInto,
  type Repositories,
  type Repository,
  repositoryIn,
  type StoredManifest,
} from "./fake-registry-content.ts";
import type { Exchange } from "./fake-registry-exchange.ts";
import type { Features } from "./fake-registry-features.ts";

export interface ManifestOptions {
  readonly repositories: Repositories;
  readonly features: Features;
}

/** What the registry does with manifests, by method. */
export async function answerManifest(options: ManifestOptions, exchange: Exchange): Promise<void> {
  const { repositories, features } = options;
  const { target, request } = exchange;
  if (request.method === "PUT") return putManifest(options, exchange);
  const repository = peekInto(repositories, target.repository);
  const digest = repository.tags.get(target.reference) ?? target.reference;
  const manifest = repository.manifests.get(digest);
  if (request.method === "DELETE" && !features.deletes) return exchange.fail(405, "UNSUPPORTED");
  if (manifest === undefined) {
    const isKnown = repositories.has(target.repository);
    return exchange.fail(404, isKnown ? "MANIFEST_UNKNOWN" : "NAME_UNKNOWN");
  }
  if (request.method === "DELETE") return deleteManifest(repository, digest, exchange);
  if (request.method === "GET" || request.method === "HEAD") {
    return sendManifest(exchange, digest, manifest);
  }
  exchange.fail(405, "UNSUPPORTED");
}

async function sendManifest(
  exchange: Exchange,
  digest: string,
  manifest: StoredManifest,
): Promise<void> {
  const ETag = `"${digest}"`;
  const headers = { "Docker-Content-Digest": digest, ETag };
  if (exchange.request.headers["if-none-match"] === ETag) return exchange.send(304, headers);
  exchange.send(200, { ...headers, "Content-Type": manifest.mediaType }, manifest.bytes);
}

async function deleteManifest(
  repository: Repository,
  digest: string,
  exchange: Exchange,
): Promise<void> {
  if (repository.tags.delete(exchange.target.reference)) return exchange.send(202, {});
  repository.manifests.delete(digest);
  for (const [tag, tagged] of repository.tags) if (tagged === digest) repository.tags.delete(tag);
  exchange.send(202, {});
}

const largestManifest = 4 * 1024 * 1024;

async function putManifest(
  { repositories, features }: ManifestOptions,
  exchange: Exchange,
): Promise<void> {
  const { target, request, query, basePath } = exchange;
  const bytes = await exchange.body();
  const [mediaType = ""] = (request.headers["content-type"] ?? "").split(";");
  const manifest = { bytes, mediaType };
  const repository = peekInto(repositories, target.repository);
  if (!mayOverwrite(repository, exchange)) return exchange.send(412, {});
  const document = readManifest(manifest);
  const wrong = whatIsWrong(target.reference, manifest, repository);
  if (wrong !== undefined) return exchange.fail(...wrong);
  const kept = repositoryIn(repositories, target.repository);
  const digest = addManifest(kept, target.reference, manifest);
  const tags = features.tagParameters && target.reference === digest ? query.getAll("tag") : [];
  for (const tag of tags) kept.tags.set(tag, digest);
  exchange.send(201, {
    Location: `${basePath}/v2/${target.repository}/manifests/${digest}`,
    "Docker-Content-Digest": digest,
    ...(document?.subject && features.referrers && { "OCI-Subject": document.subject.digest }),
    ...(tags.length > 0 && { "OCI-Tag": [tags.slice(0, -1).join(", "), tags.at(-1) ?? ""] }),
  });
}

/** RFC 9110, section 13: a client that keeps the list of referrers itself may say what it has read. */
function mayOverwrite({ tags }: Repository, { target, request }: Exchange): boolean {
  const { "if-match": wanted, "if-none-match": unwanted } = request.headers;
  const tagged = tags.get(target.reference);
  if (wanted !== undefined && wanted !== `"${tagged}"`) return false;
  return unwanted !== "*" || tagged === undefined;
}

type Failure = readonly [status: number, code: string, message?: string];

function whatIsWrong(
  reference: string,
  manifest: StoredManifest,
  repository: Repository,
): Failure | undefined {
  const { bytes, mediaType } = manifest;
  if (bytes.length > largestManifest) return [413, "SIZE_INVALID"];
  const document = readManifest(manifest);
  if (document === undefined) return [400, "MANIFEST_INVALID"];
  if ((document.mediaType ?? mediaType) !== mediaType) return [400, "MANIFEST_INVALID", "type"];
  if (reference.includes(":") && !isDigestOf(reference, bytes)) return [400, "DIGEST_INVALID"];
  const { config, layers = [], manifests = [] } = document;
  const blobs = [config ?? [], layers].flat().filter((blob) => !isForeign(blob));
  const missing =
    blobs.find(({ digest }) => !repository.blobs.has(digest)) ??
    manifests.find(({ digest }) => !repository.manifests.has(digest));
  return missing && [400, "MANIFEST_BLOB_UNKNOWN", missing.digest];
}

/** Some layers may not be copied, and are somewhere else. */
const isForeign = ({ mediaType = "" }: Described): boolean =>
  mediaType.includes("nondistributable");

interface Described {
  readonly digest: string;
  readonly mediaType?: string;
}

interface ManifestDocument {
  readonly mediaType?: string;
  readonly config?: Described;
  readonly layers?: readonly Described[];
  readonly manifests?: readonly Described[];
  readonly subject?: Described;
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Undefined for what is no JSON object. */
function readManifest({ bytes }: StoredManifest): ManifestDocument | undefined {
  try {
    const document = JSON.parse(bytes.toString());
    const isObject = typeof document === "object" && document !== null && !Array.isArray(document);
    return isObject ? document : undefined;
  } catch {
    return undefined;
  }
}

/** The referrers of OCI 1.1, in pages. */
export async function answerReferrers(
  { repositories, features }: ManifestOptions,
  exchange: Exchange,
): Promise<void> {
  const { target, query, path } = exchange;
  if (!features.referrers) return exchange.fail(404, "UNSUPPORTED");
  if (!isDigest(target.reference)) return exchange.fail(400, "DIGEST_INVALID");
  const wanted = query.get("artifactType");
  const first = Number(query.get("first") ?? 0);
  const all = [...peekInto(repositories, target.repository).manifests]
    .filter(([, manifest]) => readManifest(manifest)?.subject?.digest === target.reference)
    .map(([digest, manifest]) => describe(digest, manifest))
    .filter(({ artifactType }) => wanted === null || artifactType === wanted);
  const next = first + features.referrersPage;
  const following = new URLSearchParams(wanted === null ? {} : { artifactType: wanted });
  following.set("first", String(next));
  const mediaType = "application/vnd.oci.image.index.v1+json";
  const index = { schemaVersion: 2, mediaType, manifests: all.slice(first, next) };
  exchange.json(200, index, {
    "Content-Type": mediaType,
    ...(wanted !== null && { "OCI-Filters-Applied": "artifactType" }),
    ...(next < all.length && { Link: `<${path}?${following}>; rel="next"` }),
  });
}

/** What the specification wants to be said of a referrer. */
function describe(
  digest: string,
  manifest: StoredManifest,
): { readonly artifactType?: string } & Described {
  const { artifactType, config, annotations } = readManifest(manifest) ?? {};
  const type = artifactType || config?.mediaType;
  return {
    mediaType: manifest.mediaType,
    digest,
    ...{ size: manifest.bytes.length },
    ...(type !== undefined && { artifactType: type }),
    ...(annotations && { annotations }),
  };
}
