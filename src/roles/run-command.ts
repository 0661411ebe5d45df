import { setFlagsFromString } from "node:v8";
import { type Command, readCommand } from "../config/command.ts";
import { commandHelp, commandList, exitCodes } from "../config/help.ts";
import { describeProblems } from "../connector/problem.ts";
import { createProcessLog, describeError, type Log } from "../log.ts";
import { version } from "../version.ts";
import type { Role } from "./role.ts";

/**
 * Does what a command line asks for, in this process: to its end, or for a role until a signal comes.
 * What is wrong is said on stderr, and the process ends with a code of {@link exitCodes}.
 * @param args without the names of Node and of the script
 */
export async function runCommandLine(args: readonly string[]): Promise<void> {
  const command = readCommand(args, {
    workingDirectory: process.cwd(),
    group: process.getgid?.() ?? 0,
    environment: process.env,
  });
  if (!command.ok) {
    process.stderr.write(`oci-connector: ${describeProblems(command.problems)}\n`);
    process.exitCode = exitCodes.wrongUsage.code;
    return;
  }
  await run(command.value).catch((error: unknown) => {
    process.stderr.write(`oci-connector: ${tell(error)}\n`);
    process.exit(exitCodes.failed.code); // whatever a role had begun already would keep it alive
  });
}

/** Roles are loaded when they are asked for: none pays for the libraries of another. */
async function run(command: Command): Promise<void> {
  switch (command.name) {
    case "help":
      process.stdout.write(command.topic === undefined ? commandList : commandHelp[command.topic]);
      return;
    case "version":
      process.stdout.write(`oci-connector ${version}\n`);
      return;
    case "mount": {
      const { mount } = await import("./mount.ts");
      process.stdout.write(await mount(command.settings));
      return;
    }
    case "unmount": {
      const { unmount } = await import("./mount.ts");
      process.stdout.write(await unmount(command.settings));
      return;
    }
    case "render": {
      const { render } = await import("./render.ts");
      process.stdout.write(render(command.settings));
      return;
    }
    case "doctor": {
      const { doctor } = await import("./doctor.ts");
      const { report, failed } = await doctor(command.settings, process.env);
      process.stdout.write(report);
      if (failed) process.exitCode = exitCodes.failed.code;
      return;
    }
    case "standalone": {
      const { settings } = command;
      return runRole(async (log) =>
        (await import("./standalone.ts")).startStandalone(settings, log),
      );
    }
    case "csi": {
      const { settings } = command;
      setFlagsFromString("--no-opt"); // its work is system calls; it takes 8 MiB less, and no more time
      return runRole(async (log) =>
        (await import("./csi.ts")).startCsi(settings, process.env, log),
      );
    }
    case "proxy": {
      const { settings } = command;
      return runRole(async (log, told) =>
        (await import("./proxy.ts")).startClusterProxy(settings, process.env, log, told),
      );
    }
    case "controller": {
      const { settings } = command;
      return runRole(async (log) =>
        (await import("./controller.ts")).startClusterController(settings, process.env, log),
      );
    }
  }
}

/** Runs a role until a signal comes, and ends it in order. */
async function runRole(start: (log: Log, told: AbortSignal) => Promise<Role>): Promise<void> {
  const log = createProcessLog();
  const ending = new AbortController();
  const told = toldToEnd(log).then(() => ending.abort());
  const role = await start(log, ending.signal).catch((error: unknown) => {
    if (error !== ending.signal.reason) throw error;
  });
  await told;
  await role?.stop();
}

/** Settles when a signal has come, also one that comes too early for what is to be ended. A second one ends the process at once. */
async function toldToEnd(log: Log): Promise<void> {
  await new Promise<void>((resolve) => {
    let told = false;
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        if (told) process.exit(exitCodes.failed.code);
        told = true;
        log("info", "received a signal to end; requests under way are finished first", { signal });
        resolve();
      });
    }
  });
}

function tell(error: unknown): string {
  if (!(error instanceof Error)) return describeError(error);
  return error.cause === undefined
    ? error.message
    : `${error.message} (${describeError(error.cause)})`;
}
