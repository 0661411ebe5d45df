/** What the kernel says of this boot and of processes. */
import { readFile } from "node:fs/promises";
import { unless } from "../error-code.ts";
import { startTicksIn, statFieldsIn } from "../standalone/volume-life.ts";

/** The id of this boot of the machine. Where the kernel shows none, as in some sandboxes, all boots have one id. */
export const bootId = (): Promise<string> =>
  readFile("/proc/sys/kernel/random/boot_id", "utf8").then(
    (text) => text.trim(),
    unless("unknown", "ENOENT"),
  );

/** The number of the user who has started a process, also where that one runs with more rights; undefined where none with that number runs. */
export async function processUser(pid: number): Promise<number | undefined> {
  const text = await readFile(`/proc/${pid}/status`, "utf8").catch(
    unless(undefined, "ENOENT", "ESRCH"),
  );
  const uid = /^Uid:\s+(\d+)/m.exec(text ?? "")?.[1];
  return uid === undefined ? undefined : Number(uid);
}

/** When a process was started, in the kernel's ticks since the boot; undefined where none with that number runs. */
export async function processStart(pid: number): Promise<number | undefined> {
  // ESRCH: it has ended while its file was read.
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(
    unless(undefined, "ENOENT", "ESRCH"),
  );
  return stat === undefined ? undefined : startTicksIn(stat);
}

/** Whether this process belongs to the foreground of a terminal: its group is the one that gets the keys (proc_pid_stat(5)). */
export async function isInTerminalForeground(): Promise<boolean> {
  const [, , group, , , foreground] = statFieldsIn(await readFile("/proc/self/stat", "utf8"));
  return group === foreground;
}
