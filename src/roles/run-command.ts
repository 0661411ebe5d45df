import { setFlagsFromString } from "node:v8";
import { type Command, readCommand } from "../config/command.ts";
import { commandHelp, commandList, exitCodes } from "../config/help.ts";
import { describeProblems, type Problem } from "../connector/problem.ts";
import type { Diagnosis } from "../doctor/report.ts";
import { errorCode } from "../error-code.ts";
import { describeError } from "../log.ts";
import { version } from "../version.ts";
import { runRole } from "./role.ts";

/**
 * Runs the command of a command line in this process: a role runs until a signal comes, every other command to its end.
 * Errors go to stderr, and the process ends with a code of {@link exitCodes}.
 * @param args without the names of Node and of the script
 */
export async function runCommandLine(args: readonly string[]): Promise<void> {
  const workingDirectory = currentFolder();
  if (workingDirectory === undefined) {
    writeError("the working directory has been removed: change to a folder that exists");
    process.exitCode = (args[0] === "run" ? exitCodes.notRun : exitCodes.failed).code;
    return;
  }
  const command = readCommand(args, {
    workingDirectory,
    group: process.getgid?.() ?? 0,
    uid: process.getuid?.() ?? 0,
    environment: process.env,
  });
  if (!command.ok) {
    refuseUsage(command.problems);
    return;
  }
  await run(command.value).catch((error: unknown) => {
    writeError(errorText(error));
    const { failed, notRun } = exitCodes;
    process.exit((command.value.name === "run" ? notRun : failed).code); // what a role has started already would keep the process alive
  });
}

/** @returns undefined where the working directory has been removed, as a job's folder may be while the job runs */
function currentFolder(): string | undefined {
  try {
    return process.cwd();
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

function refuseUsage(problems: readonly Problem[]): void {
  writeError(describeProblems(problems));
  process.exitCode = exitCodes.wrongUsage.code;
}

/** Writes an error to stderr. Where that fails, the exit code still says that there was one. */
function writeError(message: string): void {
  process.stderr.on("error", () => undefined);
  process.stderr.write(`oci-connector: ${message}\n`);
}

/** Runs a command. Each one is loaded when it is run, so that no role takes memory for the libraries of another. */
async function run(command: Command): Promise<void> {
  switch (command.name) {
    case "help":
      process.stdout.write(command.topic === undefined ? commandList : commandHelp[command.topic]);
      return;
    case "version":
      process.stdout.write(`oci-connector ${version}\n`);
      return;
    case "mount": {
      const { mount } = await import("./volume-commands.ts");
      process.stdout.write(await mount(command.settings));
      return;
    }
    case "unmount": {
      const { unmount } = await import("./volume-commands.ts");
      process.stdout.write(await unmount(command.settings));
      return;
    }
    case "volumes": {
      const { volumes } = await import("./volume-commands.ts");
      process.stdout.write(await volumes(command.settings));
      return;
    }
    case "run": {
      const { runJob } = await import("./run-job.ts");
      const options = { environment: process.env, warn: writeError };
      process.exitCode = await runJob(command.settings, options);
      return;
    }
    case "render": {
      const { render } = await import("./render.ts");
      const rendered = render(command.settings);
      if (rendered.ok) process.stdout.write(rendered.value);
      else refuseUsage(rendered.problems);
      return;
    }
    case "check": {
      const { check } = await import("./check.ts");
      printDiagnosis(await check(command.settings));
      return;
    }
    case "doctor": {
      const { doctor } = await import("./doctor.ts");
      printDiagnosis(await doctor(command.settings, process.env));
      return;
    }
    case "standalone": {
      const { settings } = command;
      return runRole(async ({ log }) =>
        (await import("./standalone.ts")).startStandalone(settings, log),
      );
    }
    case "csi": {
      const { settings } = command;
      // Its work is system calls. Without compiled code it takes 10 MiB less, and no more time.
      for (const flag of ["--no-opt", "--no-sparkplug", "--optimize-for-size"])
        setFlagsFromString(flag);
      return runRole(async (processLog) =>
        (await import("./csi.ts")).startCsi(settings, process.env, processLog),
      );
    }
    case "proxy": {
      const { settings } = command;
      return runRole(async (processLog, signal) =>
        (await import("./proxy.ts")).startClusterProxy(settings, process.env, processLog, signal),
      );
    }
    case "node-images": {
      const { settings } = command;
      return runRole(async (processLog) =>
        (await import("./node-images.ts")).startNodeImages(settings, process.env, processLog),
      );
    }
    case "controller": {
      const { settings } = command;
      return runRole(async (processLog) =>
        (await import("./controller.ts")).startClusterController(settings, process.env, processLog),
      );
    }
  }
}

function printDiagnosis({ report, failed }: Diagnosis): void {
  process.stdout.write(report);
  if (failed) process.exitCode = exitCodes.failed.code;
}

/** The message of an error for a person, with its cause unless the message has its code already. */
function errorText(error: unknown): string {
  if (!(error instanceof Error)) return describeError(error);
  const { message, cause } = error;
  const code = errorCode(cause);
  const isTold = cause === undefined || (code !== undefined && message.includes(String(code)));
  return isTold ? message : `${message} (${describeError(cause)})`;
}
