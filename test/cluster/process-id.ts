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

/** How long a process may take to end by a signal that it can handle, and by one that it can't. */
const patienceMs = 60_000;

/**
 * Sends a signal and waits until the process has ended. Nothing happens where it has ended before. One that was stopped
 * (SIGSTOP) goes on, so that it gets the signal; one that does not end is killed after a minute.
 * @throws Error where it does not end even then
 */
export async function endProcess(process_: ProcessId, signal: NodeJS.Signals): Promise<void> {
  if (await endsBy(process_, signal)) return;
  if (signal !== "SIGKILL" && (await endsBy(process_, "SIGKILL"))) return;
  const state = (await statFields(process_.pid))?.state;
  throw new Error(`process ${process_.pid} does not end by SIGKILL: it is in state ${state}`);
}

async function endsBy(process_: ProcessId, signal: NodeJS.Signals): Promise<boolean> {
  const deadline = performance.now() + patienceMs;
  if (!(await isAlive(process_))) return true;
  for (const name of [signal, "SIGCONT"] as const) {
    attempt(() => process.kill(process_.pid, name), unless(true, "ESRCH")); // it may end at this moment
  }
  while (await isAlive(process_)) {
    if (performance.now() > deadline) return false;
    await sleep(20);
  }
  return true;
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
