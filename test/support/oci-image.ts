import { createCipheriv, createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

export interface TestImageOptions {
  /** A layer for each, with one file of so many bytes. */
  readonly layerSizes?: readonly number[];
  /** Images of the same seed and sizes are the same, byte for byte. */
  readonly seed?: string;
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

/** An image in a folder, as an OCI layout. */
export interface TestImage {
  /** What skopeo and buildah call it: `oci:/tmp/…:latest`. */
  readonly reference: string;
  readonly folder: string;
  readonly manifest: Descriptor;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

/**
 * Writes an image made of nothing to a folder. Its layers hold bytes that no compression makes
 * smaller, and are stored as gzip already, so that clients push them as they are and digests stay.
 */
export async function writeTestImage(
  folder: string,
  { layerSizes = [1024], seed = "image" }: TestImageOptions = {},
): Promise<TestImage> {
  const blobs = join(folder, "blobs", "sha256");
  await mkdir(blobs, { recursive: true });
  const store = async (mediaType: string, bytes: Buffer): Promise<Descriptor> => {
    await writeFile(join(blobs, sha256(bytes)), bytes);
    return { mediaType, digest: `sha256:${sha256(bytes)}`, size: bytes.length };
  };
  const layers: Descriptor[] = [];
  const diffIds: string[] = [];
  for (const [index, size] of layerSizes.entries()) {
    const tar = tarOf(`file-${index}`, noise(`${seed}/${index}`, size));
    diffIds.push(`sha256:${sha256(tar)}`);
    layers.push(
      await store("application/vnd.oci.image.layer.v1.tar+gzip", gzipSync(tar, { level: 0 })),
    );
  }
  const config = await store(
    "application/vnd.oci.image.config.v1+json",
    json({
      architecture: "amd64",
      os: "linux",
      config: { Labels: { seed } },
      rootfs: { type: "layers", diff_ids: diffIds },
    }),
  );
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = await store(mediaType, json({ schemaVersion: 2, mediaType, config, layers }));
  const tag = "latest";
  const annotations = { "org.opencontainers.image.ref.name": tag };
  await writeFile(
    join(folder, "index.json"),
    json({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  );
  await writeFile(join(folder, "oci-layout"), json({ imageLayoutVersion: "1.0.0" }));
  return { reference: `oci:${folder}:${tag}`, folder, manifest, config, layers };
}

/** Bytes that look random and are the same for the same seed. */
export function noise(seed: string, size: number): Buffer {
  const key = createHash("sha256").update(seed).digest();
  return createCipheriv("aes-256-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(size));
}

const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

/** A tar archive (POSIX ustar) of one file. */
function tarOf(name: string, content: Buffer): Buffer {
  const header = Buffer.alloc(512);
  const octal = (value: number, length: number): string =>
    `${value.toString(8).padStart(length - 1, "0")}\0`;
  header.write(name, 0);
  header.write(octal(0o644, 8), 100);
  header.write(octal(0, 8), 108);
  header.write(octal(0, 8), 116);
  header.write(octal(content.length, 12), 124);
  header.write(octal(0, 12), 136);
  header.write(" ".repeat(8), 148); // the checksum counts itself as spaces
  header.write("0", 156);
  header.write("ustar\x0000", 257);
  header.write(
    octal(
      header.reduce((sum, byte) => sum + byte, 0),
      7,
    ),
    148,
  );
  const padding = Buffer.alloc((512 - (content.length % 512)) % 512);
  return Buffer.concat([header, content, padding, Buffer.alloc(1024)]);
}
