/** Writes and removes files of a node so that a process that is killed at any moment, or a power cut, leaves no half of one. */
import { constants } from "node:fs";
import type * as fs from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { unless } from "../error-code.ts";

/** The calls of the system by which a node's files are read and changed. */
export type NodeFiles = Pick<
  typeof fs,
  "link" | "lstat" | "mkdir" | "open" | "readFile" | "readdir" | "rename" | "rmdir" | "unlink"
>;

/**
 * What a file is written as before it gets its name. It ends in nothing that a kubelet or a container runtime reads, and is
 * always the same, so that what a killed process has left is written over.
 */
export const unfinished = (path: string): string =>
  join(dirname(path), `.${basename(path)}.oci-connector`);

/** Reads a file. @returns undefined where there is none */
export async function readNodeFile(files: NodeFiles, path: string): Promise<string | undefined> {
  return files.readFile(path, "utf8").catch(unless(undefined, "ENOENT", "ENOTDIR"));
}

/**
 * Writes a file under its name at once, with a mode of its own whatever the umask. Nothing happens where it has this
 * content and mode already.
 * @returns whether it was written
 */
export async function writeNodeFile(
  files: NodeFiles,
  path: string,
  content: string,
  mode: number,
): Promise<boolean> {
  if ((await readNodeFile(files, path)) === content) {
    const status = await files.lstat(path);
    if (status.isFile() && (status.mode & 0o777) === mode) return false;
  }
  const temporary = unfinished(path);
  await removeUnfinished(files, path);
  const { O_CREAT, O_EXCL, O_WRONLY } = constants;
  const file = await files.open(temporary, O_CREAT | O_EXCL | O_WRONLY, mode);
  try {
    await file.chmod(mode);
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await files.rename(temporary, path);
  await syncFolder(files, dirname(path));
  return true;
}

/** Removes what a process that was killed has left of a file that it was about to write. */
export async function removeUnfinished(files: NodeFiles, path: string): Promise<void> {
  await files.unlink(unfinished(path)).catch(unless(undefined, "ENOENT", "ENOTDIR"));
}

/** Removes a file, and what a killed process has left of it. @returns whether there was one */
export async function removeNodeFile(files: NodeFiles, path: string): Promise<boolean> {
  await removeUnfinished(files, path);
  const wasThere = await files.unlink(path).then(() => true, unless(false, "ENOENT", "ENOTDIR"));
  if (wasThere) await syncFolder(files, dirname(path));
  return wasThere;
}

/** Writes a folder to the disk: a rename or a removal in it outlives a power cut only after that. */
export async function syncFolder(files: NodeFiles, folder: string): Promise<void> {
  const handle = await files.open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
