/**
 * Reads a volume as fast as it can until its stdin ends, and tells on stdout what it saw: one JSON
 * object. A process of its own, so that reads fall between any two system calls of the writer.
 */
import { closeSync, constants, openSync, readFileSync } from "node:fs";
import { errorCode } from "../../src/error-code.ts";

const [root] = process.argv.slice(2);
const report = { reads: 0, generations: 0, mixed: 0, missing: 0 };
let last = -1;
let goesOn = true;
process.stdin.on("end", () => {
  goesOn = false;
});
process.stdin.resume();

/** Tokens end in the number of their generation. */
function see(token: string): void {
  const generation = Number(/-(\d+)$/.exec(token)?.[1]);
  if (generation !== last) report.generations++;
  last = generation;
}

const tokenIn = (config: string): string => {
  const [entry] = Object.values<{ auth: string }>(JSON.parse(config).auths);
  return Buffer.from(entry?.auth ?? "", "base64")
    .toString()
    .replace(/^[^:]*:/, "");
};

/** A file by its own name is always there, and whole. */
const readOne = (): void => see(tokenIn(readFileSync(`${root}/config.json`, "utf8")));

/** Files that are read through one look at `..data` belong together. */
function readTogether(): void {
  const folder = openSync(`${root}/..data`, constants.O_DIRECTORY);
  try {
    const token = readFileSync(`/proc/self/fd/${folder}/context.token`, "utf8");
    const config = readFileSync(`/proc/self/fd/${folder}/config.json`, "utf8");
    if (tokenIn(config) !== token) report.mixed++;
    see(token);
  } finally {
    closeSync(folder);
  }
}

/** Nothing is missing, unless the files changed twice while it was looked for. */
function tolerant(read: () => void): void {
  const before = last;
  try {
    read();
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
    tolerant(readOne);
    if (last - before < 2) report.missing++;
  }
}

process.stdout.write("ready\n");
while (goesOn) {
  for (let round = 0; round < 20; round++) {
    tolerant(readTogether);
    tolerant(readOne);
    report.reads++;
  }
  await new Promise((resolve) => setImmediate(resolve));
}
process.stdout.write(`${JSON.stringify(report)}\n`);
