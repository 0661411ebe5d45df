import { execFile } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { unescapeOctal } from "../../src/csi/volume-mounts.ts";

/**
 * Removes a folder, and before that everything that is mounted in it, also where somebody uses that.
 * @param folder without symbolic links in it
 * @throws where something of it stays, with what to do
 */
export async function removeFolder(folder: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await unmountBelow(folder);
      await rm(folder, { recursive: true, force: true });
      return;
    } catch (error) {
      // A mount that was under way is there now, or a command in another terminal has written.
      if (attempt === 10) {
        const advice = "end what uses it, unmount what is mounted in it, and remove it";
        throw new Error(`${folder} is left (${(error as Error).message}): ${advice}`);
      }
      await sleep(100);
    }
  }
}

async function unmountBelow(folder: string): Promise<void> {
  const lines = (await readFile("/proc/self/mountinfo", "utf8")).split("\n");
  // proc_pid_mountinfo(5): the fifth field is where it is mounted.
  const paths = lines.map((line) => unescapeOctal(line.split(" ")[4] ?? ""));
  for (const path of paths.reverse()) {
    // Lazily: it is gone at once, also where a shell has its working directory there.
    if (path.startsWith(`${folder}/`)) await promisify(execFile)("umount", ["--lazy", path]);
  }
}
