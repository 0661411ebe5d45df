#!/usr/bin/env node
import { runCommandLine } from "./roles/run-command.ts";

await runCommandLine(process.argv.slice(2));
