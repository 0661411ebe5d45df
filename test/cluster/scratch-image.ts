/** Makes container images FROM scratch, so that no registry is needed: docker archives, the same bytes for the same input. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  realpathSync,
  writeSync,
} from "node:fs";
import { join, posix } from "node:path";
import { type TarEntry, tarBlocks } from "./tar.ts";

/** What lies in a layer: files and folders of this machine by the absolute paths they get, or texts. */
export interface LayerContent {
  readonly files?: readonly (readonly [source: string, target: string])[];
  readonly texts?: Readonly<Record<string, string>>;
  readonly folders?: Readonly<Record<string, number>>;
  readonly links?: Readonly<Record<string, string>>;
}

export interface ImageOptions {
  /** `localhost/name:tag` */
  readonly name: string;
  /** The lowest first. An upper one leaves out what a lower one has. */
  readonly layers: readonly LayerContent[];
  readonly entrypoint: readonly string[];
  readonly workingDir?: string;
}

/** Writes an image as `docker load`, `ctr images import` and skopeo's `docker-archive:` read it. */
export function writeImage(target: string, options: ImageOptions): void {
  const seen = new Set<string>();
  const layers = options.layers.map((content) => {
    const entries = layerEntries(content, seen);
    return { entries, ...measure(entries) };
  });
  const architecture = { x64: "amd64" }[process.arch as string] ?? process.arch;
  const config = JSON.stringify({
    architecture,
    os: "linux",
    config: {
      Entrypoint: options.entrypoint,
      Env: ["PATH=/bin:/usr/bin"],
      WorkingDir: options.workingDir ?? "/",
    },
    rootfs: { type: "layers", diff_ids: layers.map(({ digest }) => `sha256:${digest}`) },
  });
  const configName = `${createHash("sha256").update(config).digest("hex")}.json`;
  const manifest = JSON.stringify([
    {
      Config: configName,
      RepoTags: [options.name],
      Layers: layers.map(({ digest }) => `${digest}.tar`),
    },
  ]);
  const archive: TarEntry[] = [
    ...layers.map(
      ({ digest, size, entries }): TarEntry => ({
        kind: "file",
        path: `${digest}.tar`,
        mode: 0o644,
        size,
        content: () => tarBlocks(entries),
      }),
    ),
    text(configName, config),
    text("manifest.json", manifest),
  ];
  const file = openSync(target, "w");
  try {
    for (const block of tarBlocks(archive)) writeSync(file, block);
  } finally {
    closeSync(file);
  }
}

function measure(entries: readonly TarEntry[]): { digest: string; size: number } {
  const hash = createHash("sha256");
  let size = 0;
  for (const block of tarBlocks(entries)) {
    hash.update(block);
    size += block.length;
  }
  return { digest: hash.digest("hex"), size };
}

/** @param seen the paths of the layers below; those of this one are added */
function layerEntries(content: LayerContent, seen: Set<string>): readonly TarEntry[] {
  const entries: TarEntry[] = [];
  const add = (entry: TarEntry): void => {
    if (!seen.has(entry.path)) entries.push(entry);
    seen.add(entry.path);
  };
  for (const [path, mode] of Object.entries(content.folders ?? {})) {
    add({ kind: "folder", path: relative(path), mode });
  }
  for (const [path, value] of Object.entries(content.texts ?? {})) add(text(relative(path), value));
  for (const [path, target] of Object.entries(content.links ?? {})) {
    add({ kind: "link", path: relative(path), target });
  }
  for (const [source, target] of content.files ?? []) addTree(source, target, add);
  return entries;
}

function addTree(source: string, target: string, add: (entry: TarEntry) => void): void {
  const path = relative(target);
  const stat = lstatSync(source);
  const mode = stat.mode & 0o777; // no setuid: nobody in such an image is meant to become root
  if (stat.isSymbolicLink()) {
    add({ kind: "link", path, target: readlinkSync(source) });
    return;
  }
  if (stat.isDirectory()) {
    add({ kind: "folder", path, mode });
    for (const child of readdirSync(source).sort()) {
      addTree(join(source, child), posix.join(target, child), add);
    }
    return;
  }
  add({ kind: "file", path, mode, size: stat.size, content: () => [readFileSync(source)] });
  if ((mode & 0o111) === 0 || !isElf(source)) return;
  for (const library of sharedLibraries(source)) addTree(realpathSync(library), library, add);
}

const relative = (path: string): string => posix.normalize(path).replace(/^\/+/, "");

const text = (path: string, value: string): TarEntry => ({
  kind: "file",
  path,
  mode: 0o644,
  size: Buffer.byteLength(value),
  content: () => [Buffer.from(value)],
});

function isElf(path: string): boolean {
  const file = openSync(path, "r");
  try {
    const magic = Buffer.alloc(4);
    readSync(file, magic, 0, 4, 0);
    return magic.toString("latin1") === "\x7fELF";
  } finally {
    closeSync(file);
  }
}

/** Shared libraries and the loader, by the paths at which the loader looks for them; none for a static program. */
function sharedLibraries(program: string): readonly string[] {
  try {
    const listing = execFileSync("ldd", [program], { encoding: "utf8", stdio: "pipe" });
    return [...listing.matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path ?? "");
  } catch {
    return [];
  }
}
