/**
 * One attacker of lowest priority, and a neighbour who must not notice:
 *
 *     npm run soak -- --hostile [--seconds 120] [--rows 1,3,18]
 *
 * Prints what was seen, and ends with status 1 where something was that must not be. docs/robustness.md says more. This
 * process must be in a network namespace of its own: soak.ts starts it there.
 */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Cleanup, cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { residentMebibytes } from "../../support/process-view.ts";
import { median } from "../../support/statistics.ts";
import type { Counts, Target } from "./attacker-process.ts";
import { type Attack, attacks } from "./attacks.ts";
import { clusterAddress, startClusterSetup } from "./cluster-setup.ts";
import type { Measurement } from "./neighbour-process.ts";
import type { Attacked, Setup } from "./setup.ts";
import { standaloneAddress, startStandaloneSetup } from "./standalone-setup.ts";
import { describe, joined, memoryOf, type Observation, problemsOf } from "./verdict.ts";

const { values } = parseArgs({
  options: {
    hostile: { type: "boolean" },
    seconds: { type: "string", default: "120" },
    rows: { type: "string" },
  },
});
const seconds = Number(values.seconds);
const rows = values.rows?.split(",");
const chosen = attacks.filter(({ name }) => rows?.includes(name.split(":", 1)[0] ?? "") ?? true);

const warmUpSeconds = 5;
/** How long the neighbour is measured before and after an attack. */
const calmSeconds = 5;
/** How often the memory is looked at. */
const sampleMs = 250;
/** A new Connector of the neighbour begins at most so often. */
const connectorIntervalMs = 500;
/** How long after an attack it may take until memory and latency are what they were. */
const recoveryMs = 60_000;
/** An attack is over, and so is its effect on the neighbour: no longer five times, as during it. */
const mostAfterwards = 2;
/** What lives in the memory of a process after an attack, and what it uses. */
const mostMemoryAfterwards = 1.5;
/** A process may use so much of its limit in any case: V8 and glibc keep pages of the peak for the next one. */
const usualShareOfLimit = 0.6;

const setups = {
  standalone: { start: startStandaloneSetup, address: standaloneAddress },
  cluster: { start: startClusterSetup, address: clusterAddress },
};

const script = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const troubles: string[] = [];

for (const kind of ["standalone", "cluster"] as const) {
  const ours = chosen.filter(({ setup }) => setup === kind);
  if (ours.length > 0) await attackAll(kind, ours);
}
for (const trouble of troubles) console.log(`FAILED ${trouble}`);
process.exit(troubles.length === 0 ? 0 : 1);

/** A setup that runs, with what measures it. */
interface Stage {
  readonly setup: Setup;
  readonly address: string;
  readonly neighbour: ChildProcess;
}

async function attackAll(kind: keyof typeof setups, ours: readonly Attack[]): Promise<void> {
  const resources = cleanup();
  try {
    const stage = await prepare(kind, resources);
    await observe(stage, undefined, warmUpSeconds);
    let calm = await observe(stage, undefined, calmSeconds);
    console.log(`${kind}, beside a CPU burner: ${describe(calm, calm)}`);
    const memory = { live: await liveMemory(stage.setup), used: memoryOf(calm) };
    for (const attack of ours) {
      let verdict = await judge(stage, attack, calm, memory);
      if (verdict.problems.length > 0) {
        // A machine that became busy in between looks the same, so both are measured once more.
        console.log(`once more, for: ${verdict.problems.join("; ")}`);
        calm = await observe(stage, undefined, calmSeconds);
        verdict = await judge(stage, attack, calm, memory);
      }
      troubles.push(...verdict.problems.map((problem) => `${attack.name}: ${problem}`));
      calm = verdict.after;
    }
  } finally {
    await resources.stop();
  }
}

async function prepare(kind: keyof typeof setups, resources: Cleanup): Promise<Stage> {
  const { address, start } = setups[kind];
  if (kind === "cluster") {
    // The address of a registry that starts before the Pod does.
    const child = spawn("ip", ["addr", "add", `${address}/32`, "dev", "lo"], { stdio: "inherit" });
    await once(child, "exit");
  }
  const neighbour = fork(script("neighbour-process.ts"), [address]);
  resources.defer(() => neighbour.kill("SIGKILL"));
  const { registry } = await nextMessage<{ registry: string }>(neighbour);
  const setup = resources.add(await start(registry));
  return { setup, address, neighbour };
}

/** The memory of each program, in MiB, by its name. */
interface Memory {
  /** What lives in it after a collection of garbage. */
  readonly live: ReadonlyMap<string, number>;
  /** What the system counts. */
  readonly used: ReadonlyMap<string, number>;
}

/** What came of an attack. */
interface Verdict {
  /** What must not be. */
  readonly problems: readonly string[];
  /** What was seen when the attack was over. */
  readonly after: Observation;
}

/**
 * Attacks, and compares what was seen then with what was seen shortly before and afterwards: how busy a machine is
 * otherwise changes all the time.
 * @param memory what it was before the first attack
 */
async function judge(
  stage: Stage,
  attack: Attack,
  before: Observation,
  memory: Memory,
): Promise<Verdict> {
  const seen = await observe(stage, attack, seconds);
  const { after, missing } = await recover(stage, before, memory);
  const calm = joined(before, after);
  console.log(`${attack.name}: ${describe(seen, calm)}\n   `, seen.counts);
  const problems = problemsOf(seen, calm, stage.setup.attacked);
  return { problems: [...problems, ...missing.map((what) => `after the attack ${what}`)], after };
}

/** Waits until an attack has no effect any more. @returns what was seen last, and which of its effects had not ended in time */
async function recover(
  stage: Stage,
  before: Observation,
  memory: Memory,
): Promise<{ readonly after: Observation; readonly missing: readonly string[] }> {
  const deadline = performance.now() + recoveryMs;
  for (;;) {
    const after = await observe(stage, undefined, calmSeconds);
    const ratio = median(after.neighbour.durationsMs) / median(before.neighbour.durationsMs);
    let missing = [
      ...(ratio <= mostAfterwards ? [] : [`the neighbour's median is × ${ratio.toFixed(1)}`]),
      ...Object.keys(after.neighbour.refused).map((what) => `the neighbour got ${what}`),
      ...stage.setup.attacked.flatMap((attacked) => excessOf(attacked, memory, memoryOf(after))),
    ];
    // A collection of garbage must not make the memory smaller that is judged here.
    if (missing.length === 0) missing = [...growthOf(memory, await liveMemory(stage.setup))];
    if (missing.length === 0 || performance.now() > deadline) return { after, missing };
  }
}

async function liveMemory({ attacked }: Setup): Promise<ReadonlyMap<string, number>> {
  const answers = attacked.map(
    async ({ name, liveMebibytes }) => [name, await liveMebibytes()] as const,
  );
  return new Map(await Promise.all(answers));
}

function growthOf({ live: before }: Memory, now: ReadonlyMap<string, number>): readonly string[] {
  return [...now].flatMap(([name, live]) => {
    const growth = live / (before.get(name) ?? 0);
    return growth <= mostMemoryAfterwards
      ? []
      : [`${name}'s live memory is × ${growth.toFixed(2)} (${live.toFixed(0)} MiB)`];
  });
}

function excessOf(
  { name, limitMebibytes }: Attacked,
  { used: before }: Memory,
  now: ReadonlyMap<string, number>,
): readonly string[] {
  const used = now.get(name) ?? Number.POSITIVE_INFINITY;
  const most = Math.max(
    usualShareOfLimit * limitMebibytes,
    mostMemoryAfterwards * (before.get(name) ?? 0),
  );
  return used <= most ? [] : [`${name} uses ${used.toFixed(0)} MiB of ${limitMebibytes}`];
}

/** @param attack undefined for a CPU burner in its place @param forSeconds how long it goes on */
async function observe(
  { setup, address, neighbour }: Stage,
  attack: Attack | undefined,
  forSeconds: number,
): Promise<Observation> {
  const attacker = startAttacker(attack?.name ?? "none", address);
  let counts: Counts = {};
  let isReached = false;
  const { registry } = await nextMessage<{ registry: string }>(attacker);
  attacker.on("message", (message) => {
    if (message === "seen") isReached = true;
    else counts = message as Counts;
  });
  try {
    if (attack !== undefined) await lead(setup, registry, attack, () => isReached);
    if (attack?.publishesKeys) await setup.publishKeys?.();
    attacker.send({ ...setup.attacker, registry } satisfies Target);
    neighbour.send(setup.neighbour);
    const end = performance.now() + forSeconds * 1000;
    const [memory, connectors] = await Promise.all([
      watchMemory(setup, end),
      makeConnectors(setup, end),
    ]);
    const answer = nextMessage<Measurement>(neighbour);
    neighbour.send("report");
    const measured = await answer;
    const failures = [...connectors.failures];
    if (attack?.restartsRoles) {
      await setup.restartRoles?.().then(
        (durationsMs) => console.log("ready again, after so many milliseconds:", durationsMs),
        (error: Error) => failures.push(`started anew, ${error.message}`),
      );
    }
    return { neighbour: measured, memory, counts, ...connectors, failures };
  } finally {
    attacker.kill("SIGKILL");
    await setup.clear();
  }
}

function startAttacker(name: string, address: string): ChildProcess {
  const command = ["--idle", "0", process.execPath, script("attacker-process.ts"), name, address];
  return spawn("chrt", command, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
}

/** Waits until a request through the attacker's connector has come to the attacker's registry. */
async function lead(
  setup: Setup,
  registry: string,
  { params }: Attack,
  isReached: () => boolean,
): Promise<void> {
  await setup.lead(registry, params);
  const { host, token, base } = setup.attacker;
  await eventually(
    async () => {
      const headers = { authorization: `Bearer ${token}` };
      const url = `http://${host}${base}/lead/manifests/1`;
      await fetch(url, { headers }).then((response) => response.arrayBuffer());
      await sleep(100);
      return isReached();
    },
    () => "the attacker's connector does not lead to the attacker's registry",
    recoveryMs,
  );
}

async function watchMemory(setup: Setup, end: number): Promise<Observation["memory"]> {
  const memory = new Map<string, number[]>(setup.attacked.map(({ name }) => [name, []]));
  while (performance.now() < end) {
    for (const { name, pid } of setup.attacked) {
      // A process that has ended has none.
      memory.get(name)?.push(await residentMebibytes(pid).catch(() => Number.POSITIVE_INFINITY));
    }
    await sleep(sampleMs);
  }
  return memory;
}

async function makeConnectors(
  { makeConnector }: Setup,
  end: number,
): Promise<Pick<Observation, "newConnectorsMs" | "failures">> {
  const newConnectorsMs: number[] = [];
  const failures: string[] = [];
  while (makeConnector !== undefined && performance.now() < end) {
    const begin = performance.now();
    await makeConnector().catch((error: Error) => failures.push(error.message));
    newConnectorsMs.push(performance.now() - begin);
    await sleep(Math.max(0, begin + connectorIntervalMs - performance.now()));
  }
  return { newConnectorsMs, failures };
}

async function nextMessage<T>(child: ChildProcess): Promise<T> {
  const [message] = (await once(child, "message")) as [T];
  return message;
}
