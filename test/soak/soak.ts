/**
 * Many clients, for a long time, before a registry that is killed every minute:
 *
 *     npm run soak [-- --minutes 30] [-- --clients 100]
 *
 * or an attacker and a neighbour who must not notice (hostile/hostile.ts):
 *
 *     npm run soak -- --hostile [--seconds 120] [--rows 1,3,18]
 *
 * Prints what was seen, and ends with status 1 where something was that must not be. docs/robustness.md says more.
 */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { requirePrograms } from "../../tools/require-programs.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { openSockets, residentMebibytes } from "../support/process-view.ts";
import { type RunningProgram, startProgram } from "../support/program.ts";
import { median } from "../support/statistics.ts";
import { imageSettings } from "./image-settings.ts";
import { startSoakRegistry } from "./soak-registry.ts";
import { emptyTally, type Tally } from "./workload.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "30" },
    clients: { type: "string", default: "100" },
    hostile: { type: "boolean", default: false },
    seconds: { type: "string" },
    rows: { type: "string" },
  },
});
const seconds = Number(values.minutes) * 60;
const restartEvery = 60;
/** After five minutes of thirty, and as much earlier in a shorter run. */
const referenceSecond = seconds / 6;
/** Seconds whose median stands for a moment, a whole round where there is time: what is on its way goes up and down. */
const round = Math.min(restartEvery, referenceSecond);
/** A process is still warming up in the first minutes. */
const mostGrowth = seconds >= 30 * 60 ? 1.1 : 1.5;

const script = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const resources = cleanup();
const troubles: string[] = [];

try {
  await (values.hostile ? hostile() : soak());
} finally {
  await resources.stop();
}
for (const trouble of troubles) console.log(`FAILED ${trouble}`);
process.exitCode = troubles.length === 0 ? 0 : 1;

/** In a network of its own: the cluster's roles have fixed ports, and a Pod has addresses. */
async function hostile(): Promise<void> {
  await requirePrograms(["unshare", "nsenter", "ip", "chrt"]);
  const inNetwork = ["--net", "--", "sh", "-euc", 'ip link set lo up; exec "$@"', "sh"];
  const program = [process.execPath, script("hostile/hostile.ts"), ...process.argv.slice(2)];
  const child = spawn("unshare", [...inNetwork, ...program], { stdio: "inherit" });
  resources.defer(() => child.kill("SIGKILL"));
  const [status] = await once(child, "exit");
  if (status !== 0) troubles.push("a neighbour noticed an attacker");
}

async function soak(): Promise<void> {
  await requirePrograms(["docker-registry"]);
  const registry = resources.add(await startSoakRegistry());
  const args = [script("proxy-process.ts"), registry.url, registry.username, registry.password];
  const proxy = resources.add(await startAsInImage(args));
  const [, said = ""] = await proxy.waitFor(/^(\{.*\}) ready$/m);
  const { host, token } = JSON.parse(said) as { readonly host: string; readonly token: string };
  const socketsBefore = await openSockets(proxy.pid);

  const clients = fork(script("clients-process.ts"), [host, token, values.clients]);
  resources.defer(() => clients.kill("SIGKILL"));
  let tally = emptyTally();
  clients.on("message", (message) => {
    tally = message as Tally;
  });
  await once(clients, "message");
  const memory = await watch(proxy, registry.restart, () => tally);
  await finish(clients);
  console.log(
    `${tally.pulls} pulls, ${tally.resumed} of them resumed, ${tally.pushes} pushes; begun anew after:`,
    tally.again,
  );
  troubles.push(...tally.corrupted);
  if (tally.pulls < seconds / 6 || tally.pushes < seconds / 6)
    troubles.push("clients got on too slowly");
  checkMemory(memory);
  await checkSockets(proxy, socketsBefore);
}

/** Node and its memory as they are set where people run it. */
function startAsInImage(args: readonly string[]): Promise<RunningProgram> {
  const { nodeArgs, env } = imageSettings();
  return startProgram(process.execPath, [...nodeArgs, ...args], { env });
}

/** Restarts the registry every minute, and looks at the proxy. @returns MiB, second by second */
async function watch(
  proxy: RunningProgram,
  restart: () => Promise<void>,
  tally: () => Tally,
): Promise<readonly number[]> {
  const memory: number[] = [];
  const begin = performance.now();
  for (let second = 1; second <= seconds; second += 1) {
    await sleep(Math.max(0, begin + second * 1000 - performance.now()));
    if (proxy.status() !== undefined) throw new Error(`the proxy has ended: ${proxy.output()}`);
    memory.push(await residentMebibytes(proxy.pid));
    if (second % restartEvery !== 0) continue;
    const { pulls, pushes } = tally();
    const sockets = await openSockets(proxy.pid);
    console.log(
      `minute ${second / 60}: ${pulls} pulls, ${pushes} pushes, ${memory.at(-1)?.toFixed(1)} MiB, ${sockets} sockets`,
    );
    if (second < seconds) await restart();
  }
  return memory;
}

async function finish(clients: ChildProcess): Promise<void> {
  clients.send("finish");
  await once(clients, "exit");
}

function checkMemory(memory: readonly number[]): void {
  const near = (second: number): number =>
    median(memory.slice(second - round / 2, second + round / 2));
  const reference = near(referenceSecond);
  const last = near(memory.length - round / 2);
  const growth = last / reference;
  console.log(
    `memory: ${reference.toFixed(1)} MiB after ${referenceSecond / 60} minutes, ${last.toFixed(1)} MiB in the end: × ${growth.toFixed(3)}`,
  );
  if (growth > mostGrowth) troubles.push(`the proxy's memory has grown × ${growth.toFixed(3)}`);
}

/** Connections that are kept for the next request end by themselves. */
async function checkSockets(proxy: RunningProgram, before: number): Promise<void> {
  let open = 0;
  await eventually(
    async () => {
      open = await openSockets(proxy.pid);
      return open <= before;
    },
    () => `${open - before} sockets are left`,
    60_000,
  ).catch((error: Error) => troubles.push(error.message));
  console.log(`sockets: ${before} before, ${open} in the end`);
}
