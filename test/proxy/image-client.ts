import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Clients, prepareClients } from "../support/clients.ts";
import type { TestProxy } from "./test-proxy.ts";

/** What a Pod has: image tools, and files for each connector such as its volume holds. */
export interface ImageClient extends Clients {
  /** Flags for skopeo and buildah that log in at a proxy and trust it, with `prefix` before each. */
  login(access: Access, prefix?: "src-" | "dest-"): readonly string[];
  /** Writes the files for one connector. */
  access(proxy: TestProxy, name: string, options?: AccessOptions): Promise<Access>;
}

export interface AccessOptions {
  readonly scheme?: "http" | "https";
  /** Where the proxy is, if not where it listens. */
  readonly host?: string;
}

/** How to get at one connector. */
export interface Access {
  /** What an image name starts with. */
  readonly prefix: string;
  readonly token: string;
  readonly authfile: string;
  /** Undefined over plain HTTP. */
  readonly certDir: string | undefined;
}

export async function prepareImageClient(): Promise<ImageClient> {
  const clients = await prepareClients();
  let count = 0;
  return {
    ...clients,
    async access(proxy, name, { scheme = "http", host = proxy[scheme] } = {}) {
      const folder = join(clients.folder, `access-${count++}`);
      const certDir = join(folder, "certs");
      await mkdir(certDir, { recursive: true });
      await writeFile(join(certDir, "ca.crt"), proxy.surroundings.authority.certificate);
      const token = proxy.token(name);
      const auth = Buffer.from(`connector:${token}`).toString("base64");
      const authfile = join(folder, "config.json");
      await writeFile(authfile, JSON.stringify({ auths: { [host]: { auth } } }));
      const prefix = `${host}/namespaces/team-a/connectors/${name}`;
      return { prefix, token, authfile, certDir: scheme === "https" ? certDir : undefined };
    },
    login: ({ authfile, certDir }, prefix = undefined) => {
      const named = (flag: string): string => `--${prefix ?? ""}${flag}`;
      const tls =
        certDir === undefined ? [`${named("tls-verify")}=false`] : [named("cert-dir"), certDir];
      return [named("authfile"), authfile, ...tls];
    },
  };
}
