import { createHash } from "node:crypto";
import { makeTestImage, sha256, type TestImage, type TestImageOptions } from "./oci-image.ts";

export interface StoredManifest {
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** What one repository of a fake registry holds. Tests may look into it, and change it. */
export interface Repository {
  /** By digest. */
  readonly blobs: Map<string, Buffer>;
  /** By digest. */
  readonly manifests: Map<string, StoredManifest>;
  /** Tag → digest. */
  readonly tags: Map<string, string>;
}

export type Repositories = Map<string, Repository>;

/** The repository of that name, which comes into being when it is first asked for. */
export function repositoryIn(repositories: Repositories, name: string): Repository {
  const known = repositories.get(name);
  if (known !== undefined) return known;
  const made: Repository = { blobs: new Map(), manifests: new Map(), tags: new Map() };
  repositories.set(name, made);
  return made;
}

/** What the repository of that name holds, without making one. */
export const peekInto = (repositories: Repositories, name: string): Repository =>
  repositories.get(name) ?? { blobs: new Map(), manifests: new Map(), tags: new Map() };

/** Whether a text is a digest, of one of the algorithms that registries have to know. */
export const isDigest = (text: string): boolean =>
  /^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/.test(text);

export function isDigestOf(digest: string, bytes: Buffer): boolean {
  const [algorithm = "", hex] = digest.split(":");
  return isDigest(digest) && createHash(algorithm).update(bytes).digest("hex") === hex;
}

/**
 * @param digest of another algorithm than SHA-256
 * @returns the blob's digest
 */
export function addBlob(
  repository: Repository,
  bytes: Buffer,
  digest: string = sha256(bytes),
): string {
  repository.blobs.set(digest, bytes);
  return digest;
}

/**
 * @param reference a tag, or a digest
 * @returns the manifest's digest
 */
export function addManifest(
  repository: Repository,
  reference: string,
  manifest: StoredManifest,
): string {
  const isTag = !reference.includes(":");
  const digest = isTag ? sha256(manifest.bytes) : reference;
  repository.manifests.set(digest, manifest);
  if (isTag) repository.tags.set(reference, digest);
  return digest;
}

/** Stores a made-up image as if it had been pushed. */
export function addImage(
  repository: Repository,
  tag: string,
  options?: TestImageOptions,
): TestImage {
  const image = makeTestImage(options);
  for (const { digest } of [image.config, ...image.layers]) {
    repository.blobs.set(digest, image.blobs.get(digest) ?? Buffer.alloc(0));
  }
  const { digest, mediaType } = image.manifest;
  addManifest(repository, tag, { mediaType, bytes: image.blobs.get(digest) ?? Buffer.alloc(0) });
  return image;
}
