/** A registry of npm packages on this machine, which serves what this project has installed. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { Stoppable } from "./cleanup.ts";

export interface NpmRegistry extends Stoppable {
  /** `http://127.0.0.1:34567/` */
  readonly url: string;
  /** The names of packages that were asked for, in order. */
  readonly asked: readonly string[];
}

interface InstalledPackage {
  readonly name: string;
  readonly version: string;
  readonly folder: string;
  readonly manifest: object;
}

/** @param root a project with its packages installed; those of its development are not served */
export async function startNpmRegistry(root: string): Promise<NpmRegistry> {
  const packages = installedPackages(root);
  const asked: string[] = [];
  const server = createServer(({ url: path = "/" }, response) => {
    const [, tarball] = /^\/-\/(\d+)\.tgz$/.exec(path) ?? [];
    const found = packages[Number(tarball)];
    if (found !== undefined) return sendTarball(found, response);
    const name = decodeURIComponent(path.slice(1));
    asked.push(name);
    const versions = packages.flatMap((one, index) => {
      if (one.name !== name) return [];
      const dist = { tarball: `${url}-/${index}.tgz` };
      return [[one.version, { ...one.manifest, dist }] as const];
    });
    const [latest] = versions.at(-1) ?? [];
    response.writeHead(latest === undefined ? 404 : 200, { "Content-Type": "application/json" });
    const document = { name, "dist-tags": { latest }, versions: Object.fromEntries(versions) };
    response.end(JSON.stringify(document));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  return {
    url,
    asked,
    async stop() {
      server.closeAllConnections();
      await server[Symbol.asyncDispose]();
    },
  };
}

function installedPackages(root: string): readonly InstalledPackage[] {
  const lock: { packages: Record<string, { dev?: boolean }> } = JSON.parse(
    readFileSync(join(root, "package-lock.json"), "utf8"),
  );
  return Object.entries(lock.packages).flatMap(([path, { dev }]) => {
    const folder = join(root, path);
    if (path === "" || dev || !existsSync(folder)) return [];
    const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const { name, version }: { name: string; version: string } = manifest;
    return [{ name, version, folder, manifest }];
  });
}

function sendTarball({ folder }: InstalledPackage, response: ServerResponse): void {
  const options = ["--exclude=./node_modules", "--transform=s,^\\.,package,"];
  const tar = spawn("tar", ["-c", "-I", "gzip -1", ...options, "-C", folder, "."], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  tar.stdout.pipe(response);
}
