import { spawn } from "node:child_process";
import { once } from "node:events";
import { type FileHandle, open } from "node:fs/promises";
import { unless } from "../error-code.ts";

/** A lock that this process holds until it releases the lock or ends, however it ends. */
export interface FolderLock {
  release(): Promise<void>;
}

/**
 * Locks a folder by an flock(2) on a file in it. The kernel releases such a lock with the process, so
 * a kill -9 leaves nothing behind, and two processes that start at once can't both have it. Node has
 * no flock(2), so flock(1) takes the lock on a file that this process has open. The lock belongs to the open
 * file, and stays when flock(1) has ended.
 * @param path of the lock file
 * @param pid this process's id, which is written to the file for the message to others
 * @throws Error with what to do, where another process has the lock or flock(1) is missing
 */
export async function lockFolder(path: string, pid: number): Promise<FolderLock> {
  const file = await open(path, "a+", 0o600);
  try {
    await file.chmod(0o600);
    const status = await flock(file);
    if (status !== 0) throw new Error(await describeHolder(path, file));
    // Only the message reads it. It may be out of date, or missing on a full disk, while the lock never is.
    await file.truncate();
    await file.write(`${pid}\n`).catch(unless(undefined, "ENOSPC", "EDQUOT"));
  } catch (error) {
    await file.close();
    throw error;
  }
  return { release: () => file.close() };
}

async function flock(file: FileHandle): Promise<unknown> {
  const inherited = 3;
  const child = spawn("flock", ["-n", String(inherited)], {
    stdio: ["ignore", "ignore", "ignore", file.fd],
  });
  try {
    const [status] = await once(child, "exit");
    return status;
  } catch (error) {
    throw new Error("flock(1), of util-linux, is needed to lock the state folder: install it", {
      cause: error,
    });
  }
}

async function describeHolder(path: string, file: FileHandle): Promise<string> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(16), 0, 16, 0);
  const pid = /^\d+/.exec(buffer.toString("latin1", 0, bytesRead))?.[0];
  const other = pid === undefined ? "another process" : `another process (${pid})`;
  return `${path} is locked by ${other}: stop that one, or name another state folder`;
}
