/** Writes and removes files of a node so that a process that is killed at any moment, or a power cut, leaves no half of one. */
import type * as fs from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { replaceFile, syncFolder } from "../durable-file.ts";
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
  await removeUnfinished(files, path);
  await replaceFile(files, { path, temporary: unfinished(path), content, mode });
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
