/**
 * Builds the image tools and registries that no Debian package has:
 *
 *   node test/clients/client-programs.ts
 *
 * Cold this takes some twelve minutes on two cores, and nothing at all where the programs are there.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { buildGoProgram, cacheFolder } from "../support/go-programs.ts";

const module: string = import.meta.dirname;

/** The packages of go.mod's `tool` lines, and the registry that is written here. */
const sources: readonly string[] = [
  ...(/^tool \((.*?)^\)/ms.exec(goMod())?.[1] ?? "").trim().split(/\s+/),
  "clients/oci-registry",
];

/** The folder with crane, oras, regctl, buildkitd, buildctl, containerd, ctr, helm, ko, registry and oci-registry, or some of them. */
export async function buildClientPrograms(
  names: readonly string[] = sources.map((source) => basename(source)),
): Promise<string> {
  const bin = binFolder();
  await mkdir(bin, { recursive: true });
  for (const source of sources.filter((path) => names.includes(basename(path)))) {
    const target = join(bin, basename(source));
    if (!existsSync(target)) await buildGoProgram({ module, source, target });
  }
  return bin;
}

/**
 * The program of `partial-pull/`, which has a module of its own: the library of podman, buildah and skopeo in a version that
 * no Debian package of this system has. Those programs themselves can't be had from the module proxy.
 */
export async function buildPartialPull(): Promise<string> {
  const own = join(module, "partial-pull");
  const hash = createHash("sha256");
  for (const file of ["go.mod", "go.sum", "main.go"]) hash.update(readFileSync(join(own, file)));
  const bin = join(cacheFolder(), `partial-pull-${hash.digest("hex").slice(0, 12)}`);
  await mkdir(bin, { recursive: true });
  const target = join(bin, "partial-pull");
  // Neither gpgme nor btrfs is needed, and both want C libraries.
  const flags = "-tags=containers_image_openpgp,exclude_graphdriver_btrfs";
  if (!existsSync(target)) await buildGoProgram({ module: own, source: ".", target, flags });
  return target;
}

/** Where a program is, if it has been built. */
export function builtProgram(name: string): string | undefined {
  const path = join(binFolder(), name);
  return existsSync(path) ? path : undefined;
}

const binFolder = (): string => join(cacheFolder(), `clients-${fingerprint()}`);

/** The version that go.mod has of the module in which a program is. */
export function versionOf(program: string): string {
  const source = sources.find((path) => basename(path) === program) ?? "";
  const modules = [...goMod().matchAll(/^\s*(?:require )?(\S+\/\S+) v(\S+)/gm)];
  const [, , version] = modules.find(([, path]) => source.startsWith(`${path}`)) ?? [];
  if (version === undefined) throw new Error(`go.mod has no version for ${program}`);
  return version;
}

function goMod(): string {
  return readFileSync(join(module, "go.mod"), "utf8");
}

/** Other versions go to another folder. */
function fingerprint(): string {
  const hash = createHash("sha256");
  for (const file of ["go.mod", "go.sum", "oci-registry/main.go"]) {
    hash.update(readFileSync(join(module, file)));
  }
  return hash.digest("hex").slice(0, 12);
}

if (process.argv[1] === import.meta.filename) {
  process.stdout.write(`${await buildClientPrograms()}\n`);
}
