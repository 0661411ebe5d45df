import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runProgram } from "../test/support/program.ts";
import { type Comparison, type Measured, takeTurns } from "./comparison.ts";
import { type Contestant, largeBuffers } from "./contestants.ts";
import type { Plan } from "./options.ts";

const target = 0.5;
const connections = 32;

/** Gets a tiny manifest over and over, as many clients at once. */
export async function compareSmallRequests(
  contestants: readonly Contestant[],
  { rounds, wrkSeconds }: Plan,
): Promise<readonly Comparison[]> {
  // Buffers play no part here.
  const able = contestants.filter(({ name }) => name !== largeBuffers);
  const folder = await mkdtemp(join(tmpdir(), "wrk-"));
  const samples = await takeTurns(able, rounds, async (contestant) => {
    const script = join(folder, "header.lua"); // keeps the login out of the command line
    const header = JSON.stringify(contestant.authorization("files"));
    await writeFile(script, `wrk.headers["Authorization"] = ${header}\n`, { mode: 0o600 });
    const url = `${contestant.repositoryUrl("http", "files")}/manifests/tiny`;
    return wrk([`-c${connections}`, "-t1", `-d${wrkSeconds}s`, "-s", script, url]);
  });
  const label = `small GET, ${connections} connections`;
  return [{ label, unit: "requests/s", samples, target }];
}

async function wrk(args: readonly string[]): Promise<Measured> {
  const { stdout, stderr } = await runProgram("wrk", args);
  const amount = Number(/^ +(\d+) requests in /m.exec(stdout)?.[1]);
  const rate = Number(/^Requests\/sec: +([\d.]+)$/m.exec(stdout)?.[1]);
  if (!(amount > 0) || /Non-2xx|Socket errors/.test(stdout)) {
    throw new Error(`wrk: requests have failed:\n${stdout}${stderr}`);
  }
  return { amount, seconds: amount / rate };
}
