import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { accessSync } from "node:fs";
import type { Stoppable } from "./cleanup.ts";
import { eventually } from "./eventually.ts";

/** How a program has ended. */
export interface Outcome {
  /** Undefined where a signal ended it. */
  readonly status: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  readonly timedOut: boolean;
}

export interface ProgramOptions {
  /** The whole environment: nothing is inherited. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** The number of the user whom it runs as, in the group of the same number alone; that of this process unless given. */
  readonly uid?: number;
}

/** Where programs are looked for; a test's own PATH plays no part. */
export const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Runs a program to its end. Any end is an outcome; a program that is not there ends in status 127. */
export async function runProgram(
  command: string,
  args: readonly string[],
  options: ProgramOptions & {
    readonly input?: string | Buffer;
    /** Milliseconds after which it is killed. */
    readonly timeout?: number;
  } = {},
): Promise<Outcome> {
  const program = await start(command, args, options);
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    kill(program.child, "SIGKILL");
  }, options.timeout ?? 60_000);
  program.child.stdin.end(options.input ?? "");
  await program.closed;
  clearTimeout(timer);
  const status = program.child.exitCode ?? undefined;
  return { status, stdout: program.stdout(), stderr: program.stderr(), timedOut };
}

/** A program that runs in the background. */
export interface RunningProgram extends Stoppable {
  readonly pid: number;
  /** Everything that it has written so far. */
  output(): string;
  /** The first match in what it writes; rejects where it ends before that, or takes too long. */
  waitFor(pattern: RegExp, timeout?: number): Promise<RegExpExecArray>;
  /** Settles when it has ended. */
  readonly ended: Promise<void>;
  /** What it ended with; undefined while it runs, and where a signal ended it. */
  status(): number | undefined;
  signal(signal: NodeJS.Signals): void;
  /** Writes to its input, where that was left open. */
  write(text: string): void;
  /** Ends it: politely, and after two seconds by force. */
  stop(): Promise<void>;
}

/** Starts a program that `stop` ends, and the end of this process at the latest, however it comes. */
export async function startProgram(
  command: string,
  args: readonly string[],
  options: ProgramOptions & {
    /** Its input stays open for `write`; otherwise there is none. */
    readonly opensInput?: boolean;
  } = {},
): Promise<RunningProgram> {
  const { child, ended, stdout, stderr, pid } = await start(command, args, options);
  if (!options.opensInput) child.stdin.end();
  for (const handle of [child, child.stdin, child.stdout, child.stderr]) unref(handle);
  const output = (): string => stdout() + stderr();
  return {
    pid,
    output,
    ended,
    status: () => child.exitCode ?? undefined,
    signal: (signal) => kill(child, signal),
    write: (text) => void child.stdin.write(text),
    waitFor: (pattern, timeout = 20_000) =>
      eventually(
        () => {
          const hasEnded = child.stdout.readableEnded && child.stderr.readableEnded;
          const match = pattern.exec(output());
          if (match !== null) return match;
          if (hasEnded) throw new Error(`${command} ended before it wrote ${pattern}: ${output()}`);
          return undefined;
        },
        () => `${command} has not written ${pattern}: ${output()}`,
        timeout,
      ),
    async stop() {
      child.ref(); // who waits for its end stays for it
      kill(child, "SIGTERM");
      const timer = setTimeout(() => kill(child, "SIGKILL"), 2000);
      await ended;
      clearTimeout(timer);
      kill(child, "SIGKILL"); // what it may have left of its group
    },
  };
}

/** A program that a test has forgotten doesn't keep the test run alive. */
function unref(handle: object): void {
  if ("unref" in handle && typeof handle.unref === "function") handle.unref();
}

interface Started {
  readonly child: ChildProcessWithoutNullStreams;
  readonly pid: number;
  readonly ended: Promise<void>;
  /** Settles when it has ended and its output is complete. */
  readonly closed: Promise<void>;
  stdout(): string;
  stderr(): string;
}

const running = new Set<ChildProcess>();

process.on("exit", () => {
  for (const child of running) kill(child, "SIGKILL");
});

/** The kernel kills the program with us, should we be killed ourselves and run no handler. */
const setpriv = "/usr/bin/setpriv";
const canTie = isThere(setpriv);

function isThere(path: string): boolean {
  try {
    accessSync(path);
    return true;
  } catch {
    return false;
  }
}

async function start(
  command: string,
  args: readonly string[],
  options: ProgramOptions,
): Promise<Started> {
  const { uid } = options;
  const user = uid === undefined ? [] : [`--reuid=${uid}`, `--regid=${uid}`, "--clear-groups"];
  // Another user sets the signal again, since the kernel forgets it with the change.
  const tie = canTie ? [setpriv, "--pdeathsig", "KILL"] : [];
  const asUser = uid === undefined ? [] : [setpriv, ...user, ...tie];
  const [file, ...prefix] = [...(uid === undefined ? tie : asUser), command];
  const child = spawn(file ?? command, [...prefix, ...args], {
    // A group of its own, so that its children can be ended with it.
    detached: true,
    env: { PATH: systemPath, ...options.env },
    stdio: "pipe",
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  running.add(child);
  child.once("exit", () => running.delete(child));
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  child.stdin.on("error", () => {}); // a program need not read its input
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve).once("error", reject);
  });
  return { child, pid: child.pid ?? 0, ended, closed, stdout, stderr };
}

function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString("utf8");
}

function kill(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It has ended by itself.
  }
}
