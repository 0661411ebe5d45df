#!/usr/bin/env node
import { exitCodes } from "./config/help.ts";
import { nodeTooOld } from "./node-version.ts";

// Nothing else is imported above: imports run first, and the rest of the program needs what an older Node lacks.
const tooOld = nodeTooOld(process.versions.node);
if (tooOld === undefined) {
  const { runCommandLine } = await import("./roles/run-command.ts");
  await runCommandLine(process.argv.slice(2));
} else {
  process.stderr.write(`oci-connector: ${tooOld}\n`);
  process.exitCode = exitCodes.failed.code;
}
