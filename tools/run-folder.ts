import { spawnSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
} from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";

/** What a run's folder is called, before six random characters: short, since the path of a socket has 107 bytes. */
const prefix = "oci-tests-";

/** A folder for everything that one run of tests makes in the temporary folder. */
export interface RunFolder {
  readonly path: string;
  /** Removes it. */
  remove(): Promise<void>;
}

/**
 * Makes a folder for a run of tests. A lock says that it is in use: the kernel gives the lock back when
 * this process ends, also after a kill -9, and then `removeAbandonedRunFolders` of any later run
 * removes the folder.
 * @param parent where to make it: an absolute path
 * @throws Error where the folder can't be made or locked: set TMPDIR to one on another file system
 */
export function makeRunFolder(parent: string): RunFolder {
  for (;;) {
    const path = mkdtempSync(join(parent, prefix));
    const lock = openFolder(path);
    if (lock === undefined) continue;
    // Until it is locked, another run takes it for an abandoned one, and may have removed it.
    if (!lockFolder(lock) || !existsSync(path)) {
      closeSync(lock);
      continue;
    }
    chmodSync(path, 0o711); // tests run programs as other users, who have to get through
    return {
      path,
      async remove() {
        await removeFolder(path);
        closeSync(lock);
      },
    };
  }
}

/**
 * Removes the folders of this user's runs that have ended without removing them.
 * @returns a sentence about each that could not be removed
 */
export async function removeAbandonedRunFolders(parent: string): Promise<readonly string[]> {
  const problems: string[] = [];
  for (const name of await readdir(parent)) {
    if (!name.startsWith(prefix)) continue;
    const path = join(parent, name);
    await removeWhereAbandoned(path).catch((error: Error) => {
      problems.push(
        `${path}: wanted to remove what an earlier run of tests has left, but ${error.message}. Remove it by hand.`,
      );
    });
  }
  return problems;
}

async function removeWhereAbandoned(path: string): Promise<void> {
  const folder = openFolder(path);
  if (folder === undefined) return;
  try {
    const isOwn = fstatSync(folder).uid === process.getuid?.();
    if (isOwn && lockFolder(folder)) await removeFolder(path);
  } finally {
    closeSync(folder);
  }
}

/** A folder that is open; undefined where there is none any more, or none that this user may read. */
function openFolder(path: string): number | undefined {
  const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;
  try {
    return openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  } catch {
    return undefined;
  }
}

/**
 * Locks an open folder for as long as this process has it open: with flock(2), which Node doesn't have.
 * @returns false where another process has locked it
 * @throws Error where its file system has no locks
 */
function lockFolder(folder: number): boolean {
  const { status, stderr, error } = spawnSync("flock", ["--nonblock", "3"], {
    stdio: ["ignore", "ignore", "pipe", folder],
    encoding: "utf8",
  });
  if (status === 0 || status === 1) return status === 0;
  throw new Error(`wanted to lock it, and flock says: ${error?.message ?? stderr.trim()}`);
}

/** A process of the run that is just being ended may still write to its folder. */
const removeFolder = (path: string): Promise<void> =>
  rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
