import { runProgram, systemPath } from "../support/program.ts";

export interface CommandOptions {
  /** What the command reads from its standard input. */
  readonly input?: string | undefined;
  readonly cwd?: string;
  /** Beside this process's own environment. */
  readonly env?: Readonly<Record<string, string>>;
}

/**
 * Runs a command to its end, within half an hour. Programs of the system are found wherever they are.
 * @returns what it wrote to its standard output
 * @throws an Error with everything that it wrote, where it fails
 */
export async function runCommand(
  [command = "", ...args]: readonly string[],
  { input = "", cwd, env }: CommandOptions = {},
): Promise<string> {
  const inherited = process.env as Readonly<Record<string, string>>;
  const { PATH = "", ...others } = { ...inherited, ...env };
  const { status, stdout, stderr } = await runProgram(command, args, {
    input,
    timeout: 30 * 60_000,
    env: { ...others, PATH: `${PATH}:${systemPath}` },
    ...(cwd === undefined ? {} : { cwd }),
  });
  if (status === 0) return stdout;
  throw new Error(`${command} ${args.join(" ")}: status ${status}\n${stderr}${stdout}`.trim());
}
