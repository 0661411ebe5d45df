/**
 * Properties that hold whatever is sent, for as long as wanted:
 *
 *     npm run fuzz [-- --seed N] [-- --runs N] [-- --only requests,locations]
 *
 * The seed of a run that failed reproduces it. docs/robustness.md says more.
 */
import { parseArgs } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { properties } from "./properties.ts";
import type { FuzzProperty } from "./property.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
    runs: { type: "string", default: "20000" },
    only: { type: "string", default: properties.map(({ name }) => name).join(",") },
  },
});
const chosen = values.only.split(",").map((name) => properties.find((one) => one.name === name));
if (chosen.includes(undefined)) {
  console.error(`fuzz: --only knows ${properties.map(({ name }) => name).join(", ")}`);
  process.exit(64);
}
/** Inputs between two looks at the memory, each part with a seed of its own. */
const part = 2000;

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

process.on("uncaughtException", fail).on("unhandledRejection", fail);

for (const property of chosen) if (property !== undefined) await fuzz(property);

async function fuzz({ name, start }: FuzzProperty): Promise<void> {
  const started = await start();
  const runs = Number(values.runs);
  const memory: number[] = [];
  const begin = performance.now();
  for (let done = 0; done < runs; done += part) {
    const seed = Number(values.seed) + done / part;
    const inputs = Math.min(part, runs - done);
    const numRuns = Math.ceil(inputs / started.inputsPerRun);
    await started.check({ seed, numRuns }).catch((error: Error) => {
      console.error(`${name}: repeat with --only ${name} --seed ${seed} --runs ${inputs}`);
      fail(error);
    });
    collectGarbage();
    const { heapUsed, external } = process.memoryUsage();
    memory.push((heapUsed + external) / 1024 / 1024);
    if (memory.length % 10 === 0) console.log(`${name}: ${done + inputs} inputs so far`);
  }
  const summary = started.summary?.();
  await started.stop();
  const seconds = Math.round((performance.now() - begin) / 1000);
  const from = memory[Math.floor(memory.length / 5)] ?? 0;
  const to = memory.at(-1) ?? 0;
  console.log(
    `${name}: ${runs} inputs from seed ${values.seed} in ${seconds} s; live memory ${from.toFixed(1)} MiB after a fifth, ${to.toFixed(1)} MiB in the end (× ${(to / from).toFixed(2)})`,
  );
  if (summary !== undefined) console.log(`  ${summary}`);
}

function fail(error: unknown): never {
  if (error instanceof Error) console.error(error.message, "\n", error.cause ?? error.stack);
  else console.error(error);
  process.exit(1);
}
