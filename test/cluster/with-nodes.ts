/**
 * All suites that want nodes, as one file: mocha gives each of its two workers a file at a time, and so
 * one goes through these while the other goes through those that do with an API server.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import "./cluster.test.ts";

const folder = join(import.meta.dirname, "installed");
const suites = (await readdir(folder)).filter((name) => name.endsWith(".test.ts")).sort();
/** What is measured is measured once the other worker has nothing more to do. */
const measuring = "cost.test.ts";
for (const name of [...suites.filter((one) => one !== measuring), measuring]) {
  await import(join(folder, name));
}
