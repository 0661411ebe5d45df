import { createHash } from "node:crypto";
import { noise } from "../support/oci-image.ts";
import type { Talk } from "./talk.ts";

/** Content that is the same each time. */
export interface Content {
  readonly digest: string;
  readonly bytes: Buffer;
}

export interface Manifest extends Content {
  readonly mediaType: string;
  readonly size: number;
}

export interface Described {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

export type Algorithm = "sha256" | "sha512";

export const mediaTypes = {
  manifest: "application/vnd.oci.image.manifest.v1+json",
  index: "application/vnd.oci.image.index.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: "application/vnd.oci.image.layer.v1.tar+gzip",
  foreignLayer: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
  empty: "application/vnd.oci.empty.v1+json",
  example: "application/vnd.example.sbom.v1",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerLayer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
} as const;

/** What tools say that they understand. */
export const acceptAll: string = [
  mediaTypes.manifest,
  mediaTypes.index,
  mediaTypes.dockerManifest,
  mediaTypes.dockerList,
].join(", ");

export const digestOf = (bytes: Buffer, algorithm: Algorithm = "sha256"): string =>
  `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`;

export function blobOf(seed: string, size = 512, algorithm: Algorithm = "sha256"): Content {
  const bytes = noise(seed, size);
  return { bytes, digest: digestOf(bytes, algorithm) };
}

export const blobWith = (text: string, algorithm: Algorithm = "sha256"): Content => ({
  bytes: Buffer.from(text),
  digest: digestOf(Buffer.from(text), algorithm),
});

/** @param document with its `mediaType` */
export function manifestOf(
  document: { readonly mediaType: string },
  algorithm: Algorithm = "sha256",
): Manifest {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, ...document }));
  const { mediaType } = document;
  return { bytes, digest: digestOf(bytes, algorithm), mediaType, size: bytes.length };
}

export const describe = ({ bytes, digest }: Content, mediaType: string): Described => ({
  mediaType,
  digest,
  size: bytes.length,
});

export const descriptorOf = ({ mediaType, digest, size }: Manifest): Described => ({
  mediaType,
  digest,
  size,
});

/** A blob of the empty JSON object, which artifacts have in place of a configuration. */
export const emptyObject: Content = blobWith("{}");

/** Uploads a blob, however this registry lets it be done; to another repository where one is named. */
export async function putBlob(
  talk: Talk,
  { bytes, digest }: Content,
  repository: string = talk.repository,
): Promise<void> {
  const begun = await talk.send("POST", `/${repository}/blobs/uploads/`, { allow: [202] });
  await talk.send("PUT", finishing(begun.location, digest), { body: bytes, allow: [201] });
}

/** The URL that ends an upload. */
export const finishing = (location: string, digest: string): string =>
  `${location}${location.includes("?") ? "&" : "?"}digest=${encodeURIComponent(digest)}`;

export async function putManifest(
  talk: Talk,
  reference: string,
  { bytes, mediaType }: Manifest,
  allow: readonly number[] = [201],
): Promise<void> {
  const headers = { "content-type": mediaType };
  await talk.send("PUT", `manifests/${reference}`, { headers, body: bytes, allow });
}

/** Uploads an image of one layer. */
export async function putImage(talk: Talk, tag: string, seed: string = tag): Promise<Manifest> {
  const image = await imageOf(talk, seed);
  await putManifest(talk, tag, image);
  return image;
}

/** Uploads the blobs of an image. */
export async function imageOf(talk: Talk, seed: string): Promise<Manifest> {
  const config = blobWith(JSON.stringify({ architecture: "amd64", os: "linux", seed }));
  const layer = blobOf(seed);
  for (const blob of [config, layer]) await putBlob(talk, blob);
  return manifestOf({
    mediaType: mediaTypes.manifest,
    ...{ config: describe(config, mediaTypes.config) },
    ...{ layers: [describe(layer, mediaTypes.layer)] },
  });
}

/** Reads a manifest in every way there is. */
export async function readManifest(talk: Talk, reference: string): Promise<void> {
  for (const method of ["HEAD", "GET"]) {
    await talk.send(method, `manifests/${reference}`, {
      headers: { accept: acceptAll },
      allow: [200],
    });
  }
}

export async function readBlob(talk: Talk, digest: string): Promise<void> {
  for (const method of ["HEAD", "GET"]) {
    await talk.send(method, `blobs/${digest}`, { allow: [200] });
  }
}
