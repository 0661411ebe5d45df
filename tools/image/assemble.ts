/**
 * Puts what the program's image has into folders, a folder for each layer, for the Containerfile:
 *
 *   node tools/image/assemble.ts COMPILED FOLDER
 */
import { mkdirSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { layerEntries } from "./layer.ts";
import { programLayers } from "./program-layers.ts";
import type { TarEntry } from "./tar.ts";

const root = join(import.meta.dirname, "../..");
const [compiled = "", folder = ""] = process.argv.slice(2);

for (const [index, entries] of layerEntries(programLayers(root, compiled)).entries()) {
  for (const entry of entries) place(entry, join(folder, `${index}`, entry.path));
}

function place(entry: TarEntry, path: string): void {
  mkdirSync(dirname(path), { recursive: true });
  switch (entry.kind) {
    case "folder":
      mkdirSync(path, { mode: entry.mode, recursive: true });
      return;
    case "link":
      symlinkSync(entry.target, path);
      return;
    case "file":
      writeFileSync(path, Buffer.concat([...entry.content()]), { mode: entry.mode });
      utimesSync(path, 0, 0);
  }
}
