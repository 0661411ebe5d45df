#!/usr/bin/env node
import { exitCodes } from "./config/exit-codes.ts";
import { nodeTooOld } from "./node-version.ts";

// Nothing else is imported above: imports run first, and the rest of the program needs what an older Node lacks.
const tooOld = nodeTooOld(process.versions.node);
if (tooOld === undefined) {
  const { runCommandLine } = await import("./roles/run-command.ts");
  await runCommandLine(process.argv.slice(2));
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
    case "render": {
      const { render } = await import("./roles/render.ts");
      process.stdout.write(render(command.settings));
      return;
    }
    case "doctor": {
      const { doctor } = await import("./roles/doctor.ts");
      const { report, failed } = await doctor(command.settings, process.env);
      process.stdout.write(report);
      if (failed) process.exitCode = 1;
      return;
    }
    case "standalone": {
      const { settings } = command;
      return runRole(async (log) =>
        (await import("./roles/standalone.ts")).startStandalone(settings, log),
      );
    }
    case "csi": {
      const { settings } = command;
      setFlagsFromString("--no-opt"); // its work is system calls; it takes 8 MiB less, and no more time
      return runRole(async (log) =>
        (await import("./roles/csi.ts")).startCsi(settings, process.env, log),
      );
    }
    case "proxy": {
      const { settings } = command;
      return runRole(async (log, told) =>
        (await import("./roles/proxy.ts")).startClusterProxy(settings, process.env, log, told),
      );
    }
    case "controller": {
      const { settings } = command;
      return runRole(async (log) =>
        (await import("./roles/controller.ts")).startClusterController(settings, process.env, log),
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
        if (told) process.exit(1);
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
