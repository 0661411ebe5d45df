import { randomBytes } from "node:crypto";
import { open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { unless } from "../error-code.ts";

const unfinishedPrefix = ".unfinished-";

/**
 * Writes a file that its owner alone may read, whatever the umask. A reader sees the old content or
 * the new one, also after a power cut.
 */
export async function writePrivateFile(path: string, content: string | Buffer): Promise<void> {
  const folder = dirname(path);
  const name = `${unfinishedPrefix}${basename(path)}-${randomBytes(6).toString("hex")}`;
  const temporary = join(folder, name);
  try {
    const file = await open(temporary, "wx", 0o600);
    try {
      await file.chmod(0o600);
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncFolder(folder);
}

/** Removes a file for good; one that isn't there is no error. */
export async function removePrivateFile(path: string): Promise<void> {
  await rm(path, { force: true });
  await syncFolder(dirname(path));
}

/**
 * The content of a private file; undefined where there is none.
 * @throws where it can't be read, or others than its owner may
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

/** Removes what a write has left that was killed before its end. */
export async function removeUnfinishedFiles(folder: string): Promise<void> {
  const names = (await readdir(folder)).filter((name) => name.startsWith(unfinishedPrefix));
  await Promise.all(names.map((name) => rm(join(folder, name), { force: true })));
}

/** A rename or a removal outlives a power cut only when its folder is written too. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
