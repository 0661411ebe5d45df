import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { endProcess, isAlive, type ProcessId, processIdOf } from "./process-id.ts";

/** Where programs run: what to put before their command lines, and the folder of their logs and states. */
export interface Place {
  readonly folder: string;
  readonly prefix: readonly string[];
}

/** What NAME.program.json holds, so that another process can end or restart a program. */
interface ProgramState {
  readonly argv: readonly string[];
  readonly process: ProcessId;
}

const stateFile = (place: Place, name: string): string =>
  join(place.folder, `${name}.program.json`);

/** Starts a program that goes on when this process ends; its output goes to NAME.log. */
export async function startProgram(
  place: Place,
  name: string,
  argv: readonly string[],
): Promise<void> {
  const log = openSync(join(place.folder, `${name}.log`), "a");
  const [command = "", ...args] = [...place.prefix, ...argv];
  const child = spawn(command, args, {
    cwd: place.folder,
    detached: true,
    stdio: ["ignore", log, log],
  });
  closeSync(log);
  child.unref();
  if (child.pid === undefined) throw new Error(`could not start ${command}`);
  const state: ProgramState = { argv, process: await payload(place, child.pid) };
  await writeFile(stateFile(place, name), JSON.stringify(state));
}

/** nsenter stays outside, and the program, its child, gets no signal that is sent to it. */
async function payload(place: Place, pid: number): Promise<ProcessId> {
  const wrapper = await processIdOf(pid);
  if (!place.prefix.includes("nsenter")) return wrapper;
  while (await isAlive(wrapper)) {
    const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
    const [child] = children.trim().split(" ");
    if (child) return processIdOf(Number(child));
    await sleep(5);
  }
  return wrapper;
}

async function readState(place: Place, name: string): Promise<ProgramState> {
  return JSON.parse(await readFile(stateFile(place, name), "utf8")) as ProgramState;
}

/** Ends a program and forgets it. */
export async function stopProgram(
  place: Place,
  name: string,
  signal: NodeJS.Signals = "SIGKILL",
): Promise<void> {
  await endProcess((await readState(place, name)).process, signal);
  await rm(stateFile(place, name));
}

/** How a program is ended and started again. */
export interface RestartOptions {
  /** SIGTERM unless given. */
  readonly signal?: NodeJS.Signals | undefined;
  /** What is done while it does not run. */
  readonly meanwhile?: (() => Promise<void>) | undefined;
}

/** Ends a program and starts it as it was. */
export async function restartProgram(
  place: Place,
  name: string,
  { signal = "SIGTERM", meanwhile }: RestartOptions = {},
): Promise<void> {
  const { argv } = await readState(place, name);
  await stopProgram(place, name, signal);
  await meanwhile?.();
  await startProgram(place, name, argv);
}

export async function programNames(place: Place): Promise<readonly string[]> {
  const suffix = ".program.json";
  const files = await readdir(place.folder).catch(() => []);
  return files.filter((file) => file.endsWith(suffix)).map((file) => file.slice(0, -suffix.length));
}

/**
 * Waits until something holds, as long as all programs of the place run.
 * @throws an Error with the last lines of a program that has ended, or with `what` after a minute
 */
export async function waitUntil(
  place: Place,
  what: string,
  holds: () => Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!(await holds())) {
    for (const name of await programNames(place)) {
      if (await isAlive((await readState(place, name)).process)) continue;
      throw new Error(`${name} has ended:\n${await lastLines(place, name)}`);
    }
    if (performance.now() > deadline) throw new Error(`waited a minute until ${what}`);
    await sleep(100);
  }
}

async function lastLines(place: Place, name: string): Promise<string> {
  const log = await readFile(join(place.folder, `${name}.log`), "utf8");
  return log.trimEnd().split("\n").slice(-5).join("\n");
}
