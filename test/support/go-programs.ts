import { rename } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { MissingPrograms, missingPrograms } from "../../tools/require-programs.ts";
import { type Outcome, runProgram, systemPath } from "./program.ts";

/** Where programs are kept that took long to build: OCI_CONNECTOR_CACHE, or a folder in the user's own cache. */
export function cacheFolder(): string {
  const { OCI_CONNECTOR_CACHE: own, XDG_CACHE_HOME: common } = process.env;
  return own || join(common || join(homedir(), ".cache"), "oci-connector");
}

/**
 * Runs `go` in the folder of a module, so that others come first, for half an hour at most.
 * @param flags as GOFLAGS, beside those of this process
 * @returns what it wrote to its standard output
 * @throws MissingPrograms where there is no Go, and an Error with everything that it wrote, where it fails
 */
export async function go(folder: string, args: readonly string[], flags = ""): Promise<string> {
  if (missingPrograms(["go"]).length > 0) throw new MissingPrograms(wanted);
  const { GOFLAGS = "", PATH = "", ...inherited } = process.env as Record<string, string>;
  const outcome = await runProgram("nice", ["-n", "15", "go", ...args], {
    cwd: folder,
    timeout: 30 * 60_000,
    env: {
      ...inherited,
      PATH: `${PATH}:${systemPath}`,
      CGO_ENABLED: "0",
      GOFLAGS: `${GOFLAGS} ${flags}`.trim(),
    },
  });
  if (outcome.status === 0) return outcome.stdout;
  throw new Error(`go ${args.join(" ")}: ${describe(outcome)}`);
}

const wanted =
  "missing program: go. No package has what is to be built, and Debian's Go is too old for it (1.19 in Debian 12): install Go 1.26 or newer from https://go.dev/dl, and put it into the PATH";

const describe = ({ status, timedOut, stdout, stderr }: Outcome): string =>
  `${timedOut ? "not done after half an hour" : `status ${status}`}\n${stderr}${stdout}`.trim();

export interface GoProgram {
  /** The folder of the module that says which versions. */
  readonly module: string;
  /** The package to build. */
  readonly source: string;
  /** The file to make. */
  readonly target: string;
  /** For the linker, beside those that leave out what only a debugger reads. */
  readonly linkerFlags?: string;
  readonly flags?: string;
}

/** Builds a program. One that was not written to its end never gets its name. */
export async function buildGoProgram(program: GoProgram): Promise<void> {
  const { module, source, target, linkerFlags = "", flags } = program;
  process.stderr.write(`building ${source}\n`);
  const unfinished = `${target}.new`;
  const stripped = ["-trimpath", "-ldflags", `-s -w ${linkerFlags}`];
  await go(module, ["build", ...stripped, "-o", unfinished, source], flags);
  await rename(unfinished, target);
}
