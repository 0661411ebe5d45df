import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import type { Cleanup } from "../test/support/cleanup.ts";
import { startDockerRegistry } from "../test/support/docker-registry.ts";
import { startProgram } from "../test/support/program.ts";
import type { Certificates } from "./certificates.ts";
import { type Blob, startFileRegistry } from "./file-registry.ts";

export type RegistryName = "files" | "files-tls" | "sink" | "docker";

/** A registry that demands a login. */
export interface Registry {
  /** `http://127.0.0.1:34567` */
  readonly address: string;
  readonly login: { readonly username: string; readonly password: string };
}

export interface Registries {
  /** What is pulled, from `files` by HTTP and from `files-tls` by TLS, and pushed to the others. */
  readonly blob: Blob;
  readonly named: Readonly<Record<RegistryName, Registry>>;
}

export async function startRegistries(
  resources: Cleanup,
  certificates: Certificates,
  blobBytes: number,
): Promise<Registries> {
  const login = { username: "bench", password: randomBytes(12).toString("hex") };
  const authorization = basic(login);
  const files = resources.add(await startFileRegistry(certificates, { authorization, blobBytes }));
  const docker = resources.add(
    await startDockerRegistry({
      auth: "htpasswd",
      hostname: "127.0.0.1",
      http: { relativeurls: true },
    }),
  );
  const script = fileURLToPath(new URL("upload-sink.ts", import.meta.url));
  const sink = resources.add(await startProgram(process.execPath, [script]));
  const [, sinkPort] = await sink.waitFor(/listening on (\d+)/);
  return {
    blob: files.blob,
    named: {
      files: { address: files.http, login },
      "files-tls": { address: files.https, login },
      sink: { address: `http://127.0.0.1:${sinkPort}`, login },
      docker: { address: docker.url, login: docker },
    },
  };
}

/** The Authorization header (RFC 7617) for a login. */
export const basic = ({ username, password }: Registry["login"]): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
