import { resolve } from "node:path";
import type { Checked } from "../connector/problem.ts";
import type { EgressSettings } from "./cluster-settings.ts";
import { type OutputFormat, problem, readCommandLine, readOutputFormat } from "./command-line.ts";
import { egressOptions, egressSwitches, readEgressOptions } from "./egress-options.ts";

/** The settings of `check`. */
export interface CheckSettings {
  /** The folder of YAML, as an absolute path. */
  readonly folder: string;
  /** Whether each registry is asked, and whether it takes the login of its connector. */
  readonly login: boolean;
  /** A company's proxy, by which registries are reached; undefined where there is none. */
  readonly egress: EgressSettings | undefined;
  readonly output: OutputFormat;
}

/** Reads the options of `check`. @param workingDirectory what a relative path is relative to */
export function readCheck(
  args: readonly string[],
  workingDirectory: string,
): Checked<{ readonly name: "check"; readonly settings: CheckSettings }> {
  const line = readCommandLine(args, { output: "text", ...egressOptions }, [
    "login",
    ...egressSwitches,
  ]);
  const { has, positionals, problems } = line;
  const output = readOutputFormat(line);
  const [folder = "", ...others] = positionals;
  if (folder === "" || others.length > 0) {
    problems.push(problem("DIR", positionals, "one folder of YAML with Connectors and Secrets"));
  }
  const egress = readEgressOptions(line, workingDirectory);
  if (problems.length > 0) return { ok: false, problems };
  const settings = {
    folder: resolve(workingDirectory, folder),
    login: has("login"),
    egress,
    output,
  };
  return { ok: true, value: { name: "check", settings } };
}
