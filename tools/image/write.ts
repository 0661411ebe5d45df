/**
 * Writes the program's image as a docker archive, without a base image, a container tool or root:
 *
 *   npm run image -- OUT.tar [NAME:TAG]
 *
 * It holds what the Containerfile's holds. mount, umount and the libraries are this machine's.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { runSettings } from "./containerfile.ts";
import { programLayers } from "./program-layers.ts";
import { writeImage } from "./scratch-image.ts";

const root = join(import.meta.dirname, "../..");

/** @throws where the program does not compile */
export function writeProgramImage(target: string, name: string): void {
  const compiled = mkdtempSync(join(tmpdir(), "oci-connector-compiled-")); // dist/ may hold what is gone from src/
  try {
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    const args = [tsc, "-p", join(root, "tsconfig.build.json"), "--outDir", compiled];
    execFileSync(process.execPath, args, { stdio: ["ignore", "inherit", "inherit"] });
    writeImage(target, { name, layers: programLayers(root, compiled), ...runSettings(root) });
  } finally {
    rmSync(compiled, { recursive: true });
  }
}

if (process.argv[1] === import.meta.filename) {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    version: string;
  };
  const [target = "image.tar", name = `oci-connector:${version}`] = process.argv.slice(2);
  writeProgramImage(resolve(target), name);
}
