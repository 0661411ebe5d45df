import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";

export interface RunOptions {
  /** Whether the command is to fail; `maybe` where either is fine. */
  readonly fails?: boolean | "maybe";
  /** Neither the command nor what it says is shown. */
  readonly silent?: boolean;
}

/** A shell for a demo: a reader sees commands as one would type them, variables and all, and what they say. */
export interface Shell {
  say(text: string): void;
  /** @throws where the command does not end as it is to */
  run(line: string, options?: RunOptions): Promise<void>;
  /** Starts a command that goes on by itself. */
  background(line: string, options?: Pick<RunOptions, "silent">): void;
  /** Everything that commands have said. */
  transcript(): string;
  /** Ends the command that runs now. */
  interrupt(): void;
  /** Ends what goes on in the background, the last one first. */
  stop(): Promise<void>;
}

export interface ShellOptions {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** What is shown in place of longer texts, such as `$DEMO` for a folder. */
  readonly abbreviations: Readonly<Record<string, string>>;
}

export function createShell({ cwd, env, abbreviations }: ShellOptions): Shell {
  const running: ChildProcess[] = [];
  const said: string[] = [];
  let current: ChildProcess | undefined;
  let interrupted = false;
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
      if (!silent) show(`$ ${line}`);
      if (interrupted) throw new Error("interrupted");
      current = spawn("sh", ["-c", line], { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
      const { status, output } = await outcomeOf(current);
      said.push(output);
      if (!silent) show(output);
      if (fails === "maybe" || (status !== 0) === fails) return;
      const wanted = fails ? "fail" : "succeed";
      throw new Error(`this was to ${wanted} (status ${status}): ${line}\n${output}`);
    },
    background(line, { silent = false } = {}) {
      if (!silent) show(`$ ${line} &\n`);
      running.push(spawn("sh", ["-c", `exec ${line}`], { cwd, env, stdio: "ignore" }));
    },
    interrupt() {
      interrupted = true;
      current?.kill("SIGTERM");
    },
    async stop() {
      for (const child of running.splice(0).reverse()) {
        if (child.exitCode !== null || child.signalCode !== null) continue;
        child.kill("SIGTERM");
        await once(child, "exit");
      }
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
