import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { attempt, unless } from "../../src/error-code.ts";

/** A process, told from a later one with the same number by the time it started. */
export interface ProcessId {
  readonly pid: number;
  /** In clock ticks since boot. */
  readonly startTime: string;
}

/** @throws where there is no such process */
export async function processIdOf(pid: number): Promise<ProcessId> {
  const fields = await statFields(pid);
  if (fields === undefined) throw new Error(`there is no process ${pid}`);
  return { pid, startTime: fields.startTime };
}

/**
 * A process that has ended but was not waited for is not alive. It looks like that already while
 * threads of it are ending, which hold its sockets.
 */
export async function isAlive({ pid, startTime }: ProcessId): Promise<boolean> {
  const fields = await statFields(pid);
  if (fields === undefined || fields.startTime !== startTime) return false;
  return fields.state !== "Z" || fields.threads > 1;
}

/** Sends a signal and waits until the process has ended. Nothing happens where it has ended before. */
export async function endProcess(process_: ProcessId, signal: NodeJS.Signals): Promise<void> {
  if (!(await isAlive(process_))) return;
  attempt(() => process.kill(process_.pid, signal), unless(true, "ESRCH")); // it may end at this moment
  while (await isAlive(process_)) await sleep(20);
}

/** proc_pid_stat(5): the name, in parentheses, may hold blanks and parentheses of its own. */
async function statFields(
  pid: number,
): Promise<{ state: string; threads: number; startTime: string } | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0] ?? "", threads: Number(fields[17]), startTime: fields[19] ?? "" };
}
