import { execFileSync } from "node:child_process";
import {
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  realpathSync,
} from "node:fs";
import { join, posix } from "node:path";
import type { TarEntry } from "./tar.ts";

/** What lies in a layer: files and folders of this machine by the absolute paths they get, or texts. */
export interface LayerContent {
  readonly files?: readonly (readonly [source: string, target: string])[];
  readonly texts?: Readonly<Record<string, string>>;
  readonly folders?: Readonly<Record<string, number>>;
  readonly links?: Readonly<Record<string, string>>;
}

/**
 * The entries of each layer, the lowest first. An upper one leaves out what a lower one has. A program
 * comes with its shared libraries. Nothing depends on the umask that files were made with.
 */
export function layerEntries(layers: readonly LayerContent[]): readonly (readonly TarEntry[])[] {
  const seen = new Set<string>();
  return layers.map((content) => {
    const entries: TarEntry[] = [];
    const add = (entry: TarEntry): void => {
      if (!seen.has(entry.path)) entries.push(entry);
      seen.add(entry.path);
    };
    addContent(content, add);
    return entries;
  });
}

function addContent(content: LayerContent, add: (entry: TarEntry) => void): void {
  for (const [path, mode] of Object.entries(content.folders ?? {})) {
    add({ kind: "folder", path: relative(path), mode });
  }
  for (const [path, value] of Object.entries(content.texts ?? {})) {
    add(textEntry(relative(path), value));
  }
  for (const [path, target] of Object.entries(content.links ?? {})) {
    add({ kind: "link", path: relative(path), target });
  }
  for (const [source, target] of content.files ?? []) addTree(source, target, add);
}

function addTree(source: string, target: string, add: (entry: TarEntry) => void): void {
  const path = relative(target);
  const stat = lstatSync(source);
  if (stat.isSymbolicLink()) {
    add({ kind: "link", path, target: readlinkSync(source) });
    return;
  }
  if (stat.isDirectory()) {
    add({ kind: "folder", path, mode: 0o755 });
    for (const child of readdirSync(source).sort()) {
      addTree(join(source, child), posix.join(target, child), add);
    }
    return;
  }
  const mode = (stat.mode & 0o111) === 0 ? 0o644 : 0o755; // no setuid: nobody in such an image is meant to become root
  add({ kind: "file", path, mode, size: stat.size, content: () => [readFileSync(source)] });
  if (mode === 0o644 || !isElf(source)) return;
  for (const library of sharedLibraries(source)) addTree(realpathSync(library), library, add);
}

const relative = (path: string): string => posix.normalize(path).replace(/^\/+/, "");

export const textEntry = (path: string, value: string): TarEntry => ({
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
