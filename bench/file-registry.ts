import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rename, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Stoppable } from "../test/support/cleanup.ts";
import type { Certificates } from "./certificates.ts";
import { startNginx } from "./nginx.ts";

/** Where everything is, in all registries. */
export const repository = "bench/app";

/** What is pulled and pushed. */
export interface Blob {
  readonly path: string;
  readonly digest: string;
  readonly bytes: number;
}

/** A registry that does as little as one can: nginx hands out files by sendfile to who has the login. */
export interface FileRegistry extends Stoppable {
  readonly http: string;
  readonly https: string;
  readonly blob: Blob;
}

export async function startFileRegistry(
  certificates: Certificates,
  options: { readonly authorization: string; readonly blobBytes: number },
): Promise<FileRegistry> {
  const root = join(tmpdir(), "files");
  const blob = await writeContent(join(root, "v2", repository), options.blobBytes);
  const server = `
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    root ${root};
    add_header WWW-Authenticate 'Basic realm="bench"' always;
    if ($http_authorization != "${options.authorization}") { return 401; }
    location = /v2/ { return 200; }
    location ~ /manifests/ { default_type application/vnd.oci.image.manifest.v1+json; }`;
  const { http, https, program } = await startNginx({ server, accessLog: false }, certificates);
  return { http, https, blob, stop: program.stop };
}

async function writeContent(folder: string, bytes: number): Promise<Blob> {
  await mkdir(join(folder, "blobs"), { recursive: true });
  await mkdir(join(folder, "manifests"));
  await writeFile(join(folder, "manifests", "tiny"), '{"schemaVersion":2}\n');
  const written = join(folder, "blobs", "new");
  const file = await open(written, "w");
  const chunk = randomBytes(1024 * 1024);
  for (let left = bytes; left > 0; left -= chunk.length) {
    await file.write(chunk, 0, Math.min(left, chunk.length));
  }
  await file.close();
  const digest = `sha256:${await sha256(written)}`;
  const path = join(folder, "blobs", digest);
  await rename(written, path);
  return { path, digest, bytes };
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex");
}
