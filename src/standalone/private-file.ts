import { randomBytes } from "node:crypto";
import { open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { replaceFile, syncFolder } from "../durable-file.ts";
import { unless } from "../error-code.ts";

const unfinishedPrefix = ".unfinished-";

/**
 * Writes a file with mode 0600, whatever the umask. A reader sees either the old content or the new one, also after a
 * power cut.
 */
export async function writePrivateFile(path: string, content: string | Buffer): Promise<void> {
  const name = `${unfinishedPrefix}${basename(path)}-${randomBytes(6).toString("hex")}`;
  const temporary = join(dirname(path), name);
  try {
    await replaceFile({ open, rename }, { path, temporary, content, mode: 0o600 });
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Removes a file so that the removal outlives a power cut. A missing file is no error. */
export async function removePrivateFile(path: string): Promise<void> {
  await rm(path, { force: true });
  await syncFolder({ open }, dirname(path));
}

/**
 * Reads a file that its owner alone may read.
 * @returns undefined where there is no file
 * @throws Error where it can't be read, or users other than its owner can
 */
export async function readPrivateFile(path: string): Promise<Buffer | undefined> {
  const status = await stat(path).catch(unless(undefined, "ENOENT"));
  if (status === undefined) return undefined;
  if ((status.mode & 0o077) !== 0) {
    const found = (status.mode & 0o777).toString(8);
    throw new Error(
      `${path} must be accessible to its owner only, found mode ${found}: chmod 600 ${path}`,
    );
  }
  return readFile(path).catch(unless(undefined, "ENOENT"));
}

/** Removes the temporary files of writes that were killed. */
export async function removeUnfinishedFiles(folder: string): Promise<void> {
  const names = (await readdir(folder)).filter((name) => name.startsWith(unfinishedPrefix));
  await Promise.all(names.map((name) => rm(join(folder, name), { force: true })));
}
