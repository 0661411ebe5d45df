import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

export interface RunOptions {
  /** Whether the command is to fail. */
  readonly fails?: boolean;
  /** Neither the command nor what it says is shown. */
  readonly silent?: boolean;
}

/** A shell for a demo: a reader sees commands as one would type them, variables and all, and what they say. */
export interface Shell {
  say(text: string): void;
  /** @throws where the command does not end as it is to, and the interruption's reason where that comes first */
  run(line: string, options?: RunOptions): Promise<void>;
  /** Starts a command that goes on by itself. @throws the interruption's reason */
  background(line: string, options?: Pick<RunOptions, "silent">): void;
  /** Everything that commands have said. */
  transcript(): string;
  /**
   * Ends what goes on in the background, the last one first.
   * @throws where a process is there some seconds after it was killed
   */
  stop(): Promise<void>;
}

export interface ShellOptions {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** What is shown in place of longer texts, such as `$DEMO` for a folder. */
  readonly abbreviations: Readonly<Record<string, string>>;
  /** Kills the command that runs; none is started afterwards. What is in the background stays until `stop`. */
  readonly interruption: AbortSignal;
}

export function createShell(shellOptions: ShellOptions): Shell {
  const { cwd, env, abbreviations, interruption } = shellOptions;
  // A session of its own for each command: Ctrl-C in a terminal reaches the demo alone, which then
  // ends everything in the right order.
  const options: SpawnOptions = { cwd, env, detached: true };
  const running: ChildProcess[] = [];
  const said: string[] = [];
  const say = (text: string): void => void process.stdout.write(`${text}\n`);
  const show = (text: string): void => {
    let short = text;
    for (const [long, name] of Object.entries(abbreviations)) short = short.replaceAll(long, name);
    say(short.replace(/^/gm, "    "));
  };
  return {
    say,
    transcript: () => said.join(""),
    async run(line, { fails = false, silent = false } = {}) {
      interruption.throwIfAborted();
      if (!silent) show(`$ ${line}`);
      const command = spawn("sh", ["-c", line], { ...options, stdio: ["ignore", "pipe", "pipe"] });
      const end = (): void => abandon(command);
      interruption.addEventListener("abort", end);
      const { status, output } = await outcomeOf(command);
      interruption.removeEventListener("abort", end);
      interruption.throwIfAborted();
      said.push(output);
      if (!silent) show(output);
      if ((status !== 0) === fails) return;
      const wanted = fails ? "fail" : "succeed";
      throw new Error(`this was to ${wanted} (status ${status}): ${line}\n${output}`);
    },
    background(line, { silent = false } = {}) {
      interruption.throwIfAborted();
      if (!silent) show(`$ ${line} &\n`);
      // The kernel ends it with the demo, should the demo be killed and not come to `stop`.
      const tied = ["--pdeathsig", "TERM", "sh", "-c", `exec ${line}`];
      const child = spawn("setpriv", tied, { ...options, stdio: "ignore" });
      child.on("error", () => {}); // who waits for what it serves is told
      running.push(child);
    },
    async stop() {
      const left: string[] = [];
      for (const child of running.splice(0).reverse()) {
        if (!(await end(child))) left.push(`process ${child.pid} goes on after it was killed`);
      }
      if (left.length > 0) throw new Error(left.join(", "));
    },
  };
}

async function outcomeOf(child: ChildProcess): Promise<{ status: number; output: string }> {
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  const [status] = await once(child, "close");
  return { status, output: output.replaceAll("\r", "") };
}

/** Kills a command at once, since all that it could tidy up is removed with the demo's folder. */
function abandon(command: ChildProcess): void {
  signalGroup(command, "SIGKILL");
  // Whoever may have left the group and still holds the pipes is not waited for.
  command.stdout?.destroy();
  command.stderr?.destroy();
}

const graceMs = 3000;

/** Ends a process and its children, politely first. @returns whether it has ended */
async function end(child: ChildProcess): Promise<boolean> {
  signalGroup(child, "SIGTERM");
  const hasEnded = await endsWithin(child, graceMs);
  signalGroup(child, "SIGKILL"); // its children, too, which a polite end may leave
  return hasEnded || (await endsWithin(child, graceMs));
}

async function endsWithin(child: ChildProcess, timeoutMs: number): Promise<boolean> {
  const isOver = (): boolean => child.exitCode !== null || child.signalCode !== null;
  if (isOver()) return true;
  const timeout = new AbortController();
  await Promise.race([
    once(child, "exit", { signal: timeout.signal }),
    sleep(timeoutMs, undefined, { signal: timeout.signal }),
  ]);
  timeout.abort();
  return isOver();
}

function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid === undefined) return; // it could not be started
  try {
    process.kill(-pid, signal);
  } catch {
    // All of the group has ended.
  }
}
