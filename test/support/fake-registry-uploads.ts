import { randomUUID } from "node:crypto";
import { addBlob, isDigestOf, type Repositories, repositoryIn } from "./fake-registry-content.ts";
import type { Exchange } from "./fake-registry-exchange.ts";
import type { Features } from "./fake-registry-features.ts";

/** An upload that has begun. */
export interface Upload {
  readonly id: string;
  readonly repository: string;
  readonly chunks: Buffer[];
  /** A chunk was smaller than chunks have to be: it has to be the last one. */
  isAtEnd: boolean;
  /** Grows with each answer. */
  step: number;
  /** What the registry named last as the place to go on, without scheme and host. */
  location: string;
}

/** By the path of the URL. */
export type Uploads = Map<string, Upload>;

/**
 * What the `Location` of an upload looks like:
 * - `relative`: `/v2/<repository>/blobs/uploads/<id>`
 * - `absolute`: the same with scheme and host
 * - `state`: absolute, with another `_state` in its query each time, as docker-registry does
 * - `gar`: `/artifacts-uploads/…`, without the repository
 * - `ghcr`: relative, with `upload` in the singular
 */
export type LocationStyle = "relative" | "absolute" | "state" | "gar" | "ghcr";

function pathOf(
  style: LocationStyle,
  basePath: string,
  { repository, id }: { readonly repository: string; readonly id: string },
): string {
  if (style === "gar") {
    return `/artifacts-uploads/namespaces/project/repositories/store/uploads/${id}`;
  }
  return `${basePath}/v2/${repository}/blobs/${style === "ghcr" ? "upload" : "uploads"}/${id}`;
}

export interface UploadOptions {
  readonly repositories: Repositories;
  readonly uploads: Uploads;
  readonly features: Features;
  readonly origin: string;
  readonly style: LocationStyle;
}

/** POST: a mount, a blob in one request, or the begin of an upload. */
export async function beginUpload(options: UploadOptions, exchange: Exchange): Promise<void> {
  const { repositories, uploads } = options;
  const { target, query } = exchange;
  const repository = repositoryIn(repositories, target.repository);
  const mount = query.get("mount");
  const blob = mount === null ? undefined : findBlob(options, mount, query.get("from"));
  if (mount !== null && blob !== undefined) {
    return sendCreated(exchange, target.repository, addBlob(repository, blob, mount));
  }
  const id = randomUUID();
  const { repository: name } = target;
  const path = pathOf(options.style, exchange.basePath, { repository: name, id });
  const upload = { id, repository: name, chunks: [], isAtEnd: false, step: 0, location: path };
  if (query.has("digest") && options.features.singlePost) return finish(options, exchange, upload);
  uploads.set(path, upload);
  sendProgress(options, exchange, upload, 202);
}

function findBlob(
  { repositories, features }: UploadOptions,
  digest: string,
  from: string | null,
): Buffer | undefined {
  if (from !== null) return repositories.get(from)?.blobs.get(digest);
  if (!features.anonymousMounts) return undefined;
  return [...repositories.values()].map(({ blobs }) => blobs.get(digest)).find(Boolean);
}

/** Whatever is done to an upload that has begun. */
export async function continueUpload(
  options: UploadOptions,
  exchange: Exchange,
  upload: Upload,
): Promise<void> {
  const { request } = exchange;
  // Any URL that was given out will do to ask for the last one.
  const isQuestion = request.method === "GET" || request.method === "HEAD";
  if (isQuestion) return sendProgress(options, exchange, upload, 204);
  if (!isWhereWeSaid(exchange, upload)) return exchange.fail(404, "BLOB_UPLOAD_UNKNOWN");
  if (request.method === "PUT") return finish(options, exchange, upload);
  if (request.method === "PATCH") return addChunk(options, exchange, upload);
  if (request.method !== "DELETE") return exchange.fail(405, "UNSUPPORTED");
  options.uploads.delete(exchange.path);
  exchange.send(204, {});
}

/** An upload URL is opaque: it must come back byte for byte, with nothing added but the digest. */
function isWhereWeSaid({ path, rawQuery }: Exchange, { location }: Upload): boolean {
  const kept = rawQuery.split("&").filter((part) => part !== "" && !part.startsWith("digest="));
  return [path, kept.join("&")].filter((part) => part !== "").join("?") === location;
}

async function addChunk(options: UploadOptions, exchange: Exchange, upload: Upload): Promise<void> {
  if (!isNext(exchange, upload)) return sendProgress(options, exchange, upload, 416);
  if (upload.isAtEnd) return exchange.fail(400, "BLOB_UPLOAD_INVALID", "a chunk was too small");
  const chunk = await exchange.body();
  upload.chunks.push(chunk);
  upload.isAtEnd = chunk.length < options.features.smallestChunk;
  sendProgress(options, exchange, upload, 202);
}

/** Whether a chunk begins where the last one has ended, as far as it says. */
function isNext({ request }: Exchange, upload: Upload): boolean {
  const range = request.headers["content-range"];
  const first = /^(?:bytes )?(\d+)-\d+/.exec(range ?? "")?.[1];
  return range === undefined || Number(first) === sizeOf(upload);
}

async function finish(options: UploadOptions, exchange: Exchange, upload: Upload): Promise<void> {
  if (!isNext(exchange, upload)) return sendProgress(options, exchange, upload, 416);
  const blob = Buffer.concat([...upload.chunks, await exchange.body()]);
  const digest = exchange.query.get("digest") ?? "";
  if (!isDigestOf(digest, blob)) return exchange.fail(400, "DIGEST_INVALID");
  options.uploads.delete(exchange.path);
  addBlob(repositoryIn(options.repositories, upload.repository), blob, digest);
  sendCreated(exchange, upload.repository, digest);
}

function sendCreated(exchange: Exchange, repository: string, digest: string): void {
  const Location = `${exchange.basePath}/v2/${repository}/blobs/${digest}`;
  exchange.send(201, { Location, "Docker-Content-Digest": digest });
}

const sizeOf = ({ chunks }: Upload): number => chunks.reduce((sum, { length }) => sum + length, 0);

function sendProgress(
  { style, origin, features }: UploadOptions,
  exchange: Exchange,
  upload: Upload,
  status: number,
): void {
  const path = pathOf(style, exchange.basePath, upload);
  upload.step += 1;
  // With "==" at its end, as base64 has it: clients and proxies must not encode it once more.
  const state = Buffer.from(`step ${upload.step}`).toString("base64url").padEnd(12, "=");
  upload.location = style === "state" ? `${path}?_state=${encodeURIComponent(state)}` : path;
  exchange.send(status, {
    Location: `${style === "absolute" || style === "state" ? origin : ""}${upload.location}`,
    Range: `0-${Math.max(0, sizeOf(upload) - 1)}`,
    "Docker-Upload-UUID": upload.id,
    ...(features.smallestChunk > 0 && { "OCI-Chunk-Min-Length": String(features.smallestChunk) }),
  });
}
