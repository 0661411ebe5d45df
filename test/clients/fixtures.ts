import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  type Descriptor,
  makeTestImage,
  noise,
  sha256,
  type TestImage,
} from "../support/oci-image.ts";

/** An image, or an index with all its images. */
export interface Content {
  readonly manifest: Descriptor;
  /** Manifests of an index's images. */
  readonly images?: readonly Descriptor[];
  /** Everything it consists of, the manifests too, by digest. */
  readonly blobs: ReadonlyMap<string, Buffer>;
}

/** What tools push and pull. No two of them share a layer. */
export interface Fixtures {
  /** On this machine, to be pushed. */
  readonly image: TestImage;
  readonly index: Content;
  /** In the registry, to be pulled or built on. */
  readonly base: TestImage;
  readonly mirrored: TestImage;
  readonly platforms: Content;
  /** What goes into images that are built. */
  readonly payload: Buffer;
}

const mebibyte = 1024 * 1024;

export const smallFixtures = (): Fixtures => makeFixtures("small", 70_000);

/** Layers of 200 MiB, which compression makes no smaller. */
export const largeFixtures = (): Fixtures => makeFixtures("large", 200 * mebibyte);

const makeFixtures = (seed: string, size: number): Fixtures => ({
  image: makeTestImage({ seed: `${seed}/image`, layerSizes: [1000, size] }),
  index: makeTestIndex(`${seed}/index`),
  base: makeTestImage({ seed: `${seed}/base`, layerSizes: [size, 2000] }),
  mirrored: makeTestImage({ seed: `${seed}/mirrored`, layerSizes: [3000, 40_000] }),
  platforms: makeTestIndex(`${seed}/platforms`),
  payload: noise(`${seed}/payload`, size),
});

export const indexType = "application/vnd.oci.image.index.v1+json";

function makeTestIndex(seed: string): Content {
  const images = ["amd64", "arm64"].map((architecture) => ({
    architecture,
    image: makeTestImage({ seed: `${seed}/${architecture}`, architecture }),
  }));
  const manifests = images.map(({ architecture, image }) => ({
    ...image.manifest,
    platform: { os: "linux", architecture },
  }));
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: indexType, manifests }));
  const manifest = { mediaType: indexType, digest: sha256(bytes), size: bytes.length };
  const blobs = images.flatMap(({ image }) => [...image.blobs]);
  return {
    manifest,
    images: images.map(({ image }) => image.manifest),
    blobs: new Map([...blobs, [manifest.digest, bytes]]),
  };
}

/** Digests of an image's layers, unpacked. */
export function diffIdsOf({ config, blobs }: TestImage): readonly string[] {
  return JSON.parse(String(blobs.get(config.digest))).rootfs.diff_ids;
}

/** Writes an OCI layout with one tag, `latest`. */
export async function writeLayout(folder: string, { manifest, blobs }: Content): Promise<void> {
  await mkdir(join(folder, "blobs", "sha256"), { recursive: true });
  for (const [digest, bytes] of blobs) {
    await writeFile(join(folder, "blobs", digest.replace(":", "/")), bytes);
  }
  const annotations = { "org.opencontainers.image.ref.name": "latest" };
  const index = {
    schemaVersion: 2,
    mediaType: indexType,
    manifests: [{ ...manifest, annotations }],
  };
  await writeFile(join(folder, "index.json"), JSON.stringify(index));
  await writeFile(join(folder, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
}
