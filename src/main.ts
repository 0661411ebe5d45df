#!/usr/bin/env node
import { type Command, readCommand, usage } from "./config.ts";
import { describeProblems } from "./connector/problem.ts";
import { createLog, describeError, type Log } from "./log.ts";

/** sysexits.h: the command line is wrong. */
const wrongUsage = 64;

const command = readCommand(process.argv.slice(2), {
  workingDirectory: process.cwd(),
  group: process.getgid?.() ?? 0,
});
if (command.ok) {
  await run(command.value).catch((error: unknown) => {
    process.stderr.write(
      `oci-connector: ${error instanceof Error ? error.message : describeError(error)}\n`,
    );
    process.exitCode = 1;
  });
} else {
  process.stderr.write(`oci-connector: ${describeProblems(command.problems)}\n`);
  process.exitCode = wrongUsage;
}

/** Roles are loaded when they are asked for: none pays for the libraries of another. */
async function run(command: Command): Promise<void> {
  switch (command.name) {
    case "help":
      process.stdout.write(usage);
      return;
    case "mount": {
      const { mount } = await import("./roles/mount.ts");
      process.stdout.write(await mount(command.settings));
      return;
    }
    case "unmount": {
      const { unmount } = await import("./roles/mount.ts");
      process.stdout.write(await unmount(command.settings));
      return;
    }
    case "standalone": {
      const log = createLog(
        (line) => process.stderr.write(line),
        () => new Date(),
      );
      const told = toldToEnd(log);
      const { startStandalone } = await import("./roles/standalone.ts");
      const role = await startStandalone(command.settings, log);
      await told;
      await role.stop();
      return;
    }
  }
}

/** Settles when a signal has come, also one that comes too early for what is to be ended. A second one ends the process at once. */
async function toldToEnd(log: Log): Promise<void> {
  await new Promise<void>((resolve) => {
    let told = false;
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        if (told) process.exit(1);
        told = true;
        log("info", "told to end: what is under way is finished", { signal });
        resolve();
      });
    }
  });
}
