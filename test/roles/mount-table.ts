import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { unescapeOctal } from "../../src/csi/volume-mounts.ts";

export interface MountEntry {
  /** The kernel's, another one for each mount. */
  readonly id: string;
  readonly path: string;
}

/** Everything that is mounted below a folder, as this process sees it. */
export async function mountsBelow(folder: string): Promise<readonly MountEntry[]> {
  const lines = (await readFile("/proc/self/mountinfo", "utf8")).split("\n");
  return lines
    .map((line) => line.split(" "))
    .map(([id = "", , , , path = ""]) => ({ id, path: unescapeOctal(path) }))
    .filter(({ path }) => path.startsWith(`${folder}/`));
}

/** Unmounts all of it, for the end of a test. */
export async function removeMounts(folder: string): Promise<void> {
  for (const { path } of await mountsBelow(folder)) execFileSync("umount", ["--lazy", path]);
}
