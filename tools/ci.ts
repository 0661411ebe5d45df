/**
 * Runs every suite, prints what fails, and ends with the line `N passed, N failed`. A suite that
 * counts its tests, as mocha does, adds so many; any other adds one.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { whyNoCluster } from "./cluster-ability.ts";

/** The claim that a suite proves, and the npm script that proves it. */
const suites: readonly (readonly [claim: string, script: string, ...args: string[]])[] = [
  ["The code is formatted, lints, and keeps to the arrows of its layout", "lint"],
  ["The types hold", "typecheck"],
  ["The tests pass", "test"],
  ["Registries answer through the proxy as they do without it", "test:conformance"],
  ["No body is ever wrong while registries are killed", "soak", "--minutes", "3"],
  ["The demo tells its story to the end", "demo"],
  ["All of it works on a real Kubernetes", "test:cluster"],
];

let passed = 0;
let failed = 0;
const failures: string[] = [];
for (const [claim, script, ...args] of suites) {
  console.log(`\n=== ${claim}: npm run ${[script, ...args].join(" ")}`);
  const reason = script === "test:cluster" ? whyNoCluster() : undefined;
  if (reason !== undefined) {
    console.log(`SKIPPED ${claim}: ${reason}`);
    continue;
  }
  const { status, output } = await run(script, args);
  const counted = countTests(output);
  passed += counted?.passed ?? (status === 0 ? 1 : 0);
  failed += counted?.failed ?? (status === 0 ? 0 : 1);
  if (status !== 0) failures.push(`${claim}: npm run ${script} ended with status ${status}`);
  if (status !== 0 && counted?.failed === 0) failed += 1;
}
console.log("");
for (const failure of failures) console.log(`FAILED ${failure}`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && failures.length === 0 ? 0 : 1;

async function run(
  script: string,
  args: readonly string[],
): Promise<{ readonly status: number; readonly output: string }> {
  const child = spawn("npm", ["run", "--silent", script, "--", ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    process.stdout.write(text);
    output += text;
  });
  const [status] = await once(child, "close");
  return { status: status ?? 1, output };
}

/** Mocha's own sums, undefined where there are none. */
function countTests(
  output: string,
): { readonly passed: number; readonly failed: number } | undefined {
  const passing = /^ {2}(\d+) passing/m.exec(output);
  if (passing === null) return undefined;
  return {
    passed: Number(passing[1]),
    failed: Number(/^ {2}(\d+) failing/m.exec(output)?.[1] ?? 0),
  };
}
