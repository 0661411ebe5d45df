import { createCipheriv, createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

export interface TestImageOptions {
  /** A layer for each, with one file of so many bytes. */
  readonly layerSizes?: readonly number[];
  /** One more layer, of executable files: path → content. */
  readonly files?: Readonly<Record<string, Buffer>>;
  /** Images of the same seed and sizes are the same, byte for byte. */
  readonly seed?: string;
  readonly architecture?: string;
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

/** An image made of nothing. */
export interface TestImage {
  readonly manifest: Descriptor;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  /** Everything it consists of, the manifest too, by digest. */
  readonly blobs: ReadonlyMap<string, Buffer>;
}

const manifestType = "application/vnd.oci.image.manifest.v1+json";
const configType = "application/vnd.oci.image.config.v1+json";
const layerType = "application/vnd.oci.image.layer.v1.tar+gzip";

/**
 * Makes an image. Its layers hold bytes that no compression makes smaller, and are stored as gzip
 * already, so that clients push them as they are and digests stay.
 */
export function makeTestImage({
  layerSizes = [1024],
  files,
  seed = "image",
  architecture = "amd64",
}: TestImageOptions = {}): TestImage {
  const blobs = new Map<string, Buffer>();
  const store = (mediaType: string, bytes: Buffer): Descriptor => {
    const digest = sha256(bytes);
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const layerFiles = layerSizes.map((size, index) => ({
    [`file-${index}`]: noise(`${seed}/${index}`, size),
  }));
  const tars = [...layerFiles, ...(files ? [files] : [])].map(tarOf);
  const layers = tars.map((tar) => store(layerType, gzipSync(tar, { level: 0 })));
  const config = store(
    configType,
    json({
      architecture,
      os: "linux",
      config: { Labels: { seed } },
      rootfs: { type: "layers", diff_ids: tars.map(sha256) },
    }),
  );
  const document = { schemaVersion: 2, mediaType: manifestType, config, layers };
  return { manifest: store(manifestType, json(document)), config, layers, blobs };
}

/** Writes an image to a folder as an OCI layout. */
export async function writeTestImage(
  folder: string,
  options?: TestImageOptions,
): Promise<
  TestImage & { /** `oci:<folder>:latest`, for skopeo and buildah. */ reference: string }
> {
  const image = makeTestImage(options);
  const blobs = join(folder, "blobs", "sha256");
  await mkdir(blobs, { recursive: true });
  for (const [digest, bytes] of image.blobs) {
    await writeFile(join(blobs, digest.replace("sha256:", "")), bytes);
  }
  const annotations = { "org.opencontainers.image.ref.name": "latest" };
  const manifests = [{ ...image.manifest, annotations }];
  await writeFile(join(folder, "index.json"), json({ schemaVersion: 2, manifests }));
  await writeFile(join(folder, "oci-layout"), json({ imageLayoutVersion: "1.0.0" }));
  return { ...image, reference: `oci:${folder}:latest` };
}

/** Bytes that look random and are the same for the same seed. */
export function noise(seed: string, size: number): Buffer {
  const key = createHash("sha256").update(seed).digest();
  return createCipheriv("aes-256-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(size));
}

/** `sha256:<hex>` */
export const sha256 = (bytes: Buffer): string =>
  `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

/** A tar archive (POSIX ustar) of executable files. */
function tarOf(files: Readonly<Record<string, Buffer>>): Buffer {
  const entries = Object.entries(files).flatMap(([path, content]) => [
    tarHeader(path, content.length),
    content,
    Buffer.alloc((512 - (content.length % 512)) % 512),
  ]);
  return Buffer.concat([...entries, Buffer.alloc(1024)]);
}

function tarHeader(path: string, size: number): Buffer {
  const header = Buffer.alloc(512);
  const octal = (value: number, length: number): string =>
    `${value.toString(8).padStart(length - 1, "0")}\0`;
  header.write(path, 0);
  header.write(octal(0o755, 8), 100);
  header.write(octal(0, 8), 108); // owner
  header.write(octal(0, 8), 116); // group
  header.write(octal(size, 12), 124);
  header.write(octal(0, 12), 136); // time
  header.write(" ".repeat(8), 148); // the checksum counts itself as spaces
  header.write("0", 156); // a file
  header.write("ustar\x0000", 257);
  const checksum = header.reduce((sum, byte) => sum + byte, 0);
  header.write(octal(checksum, 7), 148);
  return header;
}
