/** Replaces files so that a process that is killed at any moment, or a power cut, leaves the old content or the new one. */
import type * as fs from "node:fs/promises";
import { dirname } from "node:path";

/** A file as it is to be. */
export interface DurableFile {
  readonly path: string;
  /** A path in the same folder at which nothing is. Where a write fails, something may be left there. */
  readonly temporary: string;
  readonly content: string | Buffer;
  /** Whatever the umask. */
  readonly mode: number;
}

/** Writes a file under a temporary name, and gives it its own name once all of it is on the disk. */
export async function replaceFile(
  files: Pick<typeof fs, "open" | "rename">,
  { path, temporary, content, mode }: DurableFile,
): Promise<void> {
  const file = await files.open(temporary, "wx", mode);
  try {
    await file.chmod(mode);
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await files.rename(temporary, path);
  await syncFolder(files, dirname(path));
}

/** Writes a folder to the disk: a rename or a removal in it outlives a power cut only after that. */
export async function syncFolder(files: Pick<typeof fs, "open">, folder: string): Promise<void> {
  const handle = await files.open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
