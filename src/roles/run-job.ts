import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import type { Environment } from "../config/cluster-settings.ts";
import { exitCodes } from "../config/help.ts";
import type { RunSettings } from "../config/volume-commands.ts";
import { errorCode } from "../error-code.ts";
import { createJobEnvironment } from "./job-environment.ts";
import { isInTerminalForeground } from "./machine.ts";
import { mountVolume, unmountVolume } from "./volume-commands.ts";

/** What a job's command runs with. */
export interface RunJobOptions {
  readonly environment: Environment;
  /** Tells the person something beside what the command says. */
  readonly warn: (message: string) => void;
}

/**
 * Runs a command with a volume of its own. The volume ends with the command, and with this process at the latest: the
 * standalone process sees to that where this one is killed.
 * @returns the exit code to end with: the command's own, or 128 and the number of the signal that has ended it
 * @throws Error where the command was not run
 */
export async function runJob(settings: RunSettings, options: RunJobOptions): Promise<number> {
  const signals = await receiveSignals();
  const ownFolder = await makeOwnFolder();
  try {
    return await runWithVolume(settings, { ...options, ownFolder, signals });
  } finally {
    await rm(ownFolder, { recursive: true, force: true }).catch((error: unknown) =>
      options.warn(`${ownFolder} could not be removed (${String(errorCode(error))}): remove it`),
    );
  }
}

/** @throws Error where there can be no folder for what the command's tools write */
async function makeOwnFolder(): Promise<string> {
  const folder = tmpdir();
  return await mkdtemp(join(folder, "oci-connector-run-")).catch((error: unknown) => {
    throw new Error(
      `no folder for temporary files can be made in ${folder} (${String(errorCode(error))}): create that one, or name another one by TMPDIR`,
    );
  });
}

async function runWithVolume(
  settings: RunSettings,
  options: RunJobOptions & { readonly ownFolder: string; readonly signals: ReceivedSignals },
): Promise<number> {
  const { targetPath } = await mountVolume(settings, {
    targetPath: "",
    lifetimeSeconds: 0,
    pid: process.pid,
    isReadOnly: true,
    isPersistent: false,
    replaces: false,
    hidesFiles: false,
  });
  try {
    const environment = await createJobEnvironment({
      environment: options.environment,
      volume: targetPath,
      ownFolder: options.ownFolder,
      usesForwardProxy: settings.usesForwardProxy,
    });
    return await runCommand(settings.command, environment, options.signals, options.warn);
  } finally {
    await endVolume(settings.socket, targetPath, options.warn);
  }
}

/** Ends the job's volume. Where that fails, the command has run all the same, and the process ends the volume later. */
async function endVolume(
  socket: string,
  targetPath: string,
  warn: RunJobOptions["warn"],
): Promise<void> {
  try {
    const isStillUsed = await unmountVolume(socket, targetPath);
    if (!isStillUsed) return;
    warn(
      `the command has left something running that still uses ${targetPath}: its token is refused, its files are removed, and the empty mount goes with its last user`,
    );
  } catch (error) {
    const cause = error instanceof Error ? error.message : String(error);
    warn(
      `the volume at ${targetPath} could not be unmounted; the standalone process ends it once it runs and sees that this command has ended: ${cause}`,
    );
  }
}

/** The signals that are passed on to the command, and the one that came before it was there. */
interface ReceivedSignals {
  readonly early: NodeJS.Signals | undefined;
  passTo(child: ChildProcess): void;
}

const passedSignals = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"] as const;
/** Those that a key of a terminal sends to everything in its foreground, and so to the command without us. */
const keyboardSignals: ReadonlySet<string> = new Set(["SIGINT", "SIGQUIT"]);

/** From now on no signal ends this process: what it has mounted has to be ended first. */
async function receiveSignals(): Promise<ReceivedSignals> {
  const isInForeground = await isInTerminalForeground();
  let early: NodeJS.Signals | undefined;
  let child: ChildProcess | undefined;
  for (const signal of passedSignals) {
    process.on(signal, () => {
      if (child === undefined) early ??= signal;
      else if (!isInForeground || !keyboardSignals.has(signal)) child.kill(signal);
    });
  }
  return {
    get early() {
      return early;
    },
    passTo(started) {
      child = started;
      if (early !== undefined) child.kill(early);
    },
  };
}

/** @returns the exit code to end with */
async function runCommand(
  [program, ...args]: RunSettings["command"],
  environment: Environment,
  signals: ReceivedSignals,
  warn: RunJobOptions["warn"],
): Promise<number> {
  if (signals.early !== undefined) return codeOf(signals.early);
  const child = spawn(program, args, { stdio: "inherit", env: environment });
  const failure = await once(child, "spawn").then(
    () => undefined,
    (error: unknown) => error,
  );
  if (failure !== undefined) {
    const code = String(errorCode(failure));
    const isMissing = code === "ENOENT" || code === "ENOTDIR";
    const { notFound, notExecutable } = exitCodes;
    warn(
      `${program} can't be run (${code}): ${isMissing ? "there is no such command" : "it is not executable"}`,
    );
    return (isMissing ? notFound : notExecutable).code;
  }
  signals.passTo(child);
  const [status, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
  return signal === null ? (status ?? 0) : codeOf(signal);
}

/** The exit code that shells have for a command that a signal has ended. */
const codeOf = (signal: NodeJS.Signals): number => 128 + constants.signals[signal];
