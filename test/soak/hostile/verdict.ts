import { median, quantile } from "../../support/statistics.ts";
import type { Counts } from "./attacker-process.ts";
import type { Measurement } from "./neighbour-process.ts";
import type { Attacked } from "./setup.ts";

/** What was seen while somebody attacked, or burned as much CPU time. */
export interface Observation {
  readonly neighbour: Measurement;
  /** How long each new Connector of the neighbour took until it was ready, in milliseconds. */
  readonly newConnectorsMs: readonly number[];
  /** What kept a Connector from that. */
  readonly failures: readonly string[];
  /** The memory of each program that is attacked, in MiB, by its name. */
  readonly memory: ReadonlyMap<string, readonly number[]>;
  /** What the attacker has done. */
  readonly counts: Counts;
}

const mostMedian = 5;
const mostP99 = 20;
/** The API server of the tests is one process, and itself busy with what an attacker writes. */
const mostConnector = 20;

/** The neighbour's part of two observations without an attack, as one. */
export function joined(one: Observation, other: Observation): Observation {
  const [first, second] = [one.neighbour, other.neighbour];
  return {
    ...other,
    neighbour: {
      durationsMs: [...first.durationsMs, ...second.durationsMs],
      refused: { ...first.refused, ...second.refused },
      pushes: first.pushes + second.pushes,
    },
    newConnectorsMs: [...one.newConnectorsMs, ...other.newConnectorsMs],
  };
}

/** What must not be. @param baseline what was seen while the attacker just burned CPU time */
export function problemsOf(
  { neighbour, newConnectorsMs, failures, memory, counts }: Observation,
  baseline: Observation,
  attacked: readonly Attacked[],
): readonly string[] {
  const problems = [...failures];
  const { durationsMs, refused } = neighbour;
  const compare = (what: string, found: number, calm: number, most: number): void => {
    const ratio = found / calm;
    // Not a number, where there is nothing to compare, is no success either.
    if (!(ratio <= most)) problems.push(`${what} × ${ratio.toFixed(1)}, but must be ≤ ${most}`);
  };
  const calm = baseline.neighbour.durationsMs;
  compare("the neighbour's median is", median(durationsMs), median(calm), mostMedian);
  compare("the neighbour's p99 is", quantile(durationsMs, 0.99), quantile(calm, 0.99), mostP99);
  for (const [what, times] of Object.entries(refused)) {
    problems.push(`the neighbour got ${what}, ${times} times`);
  }
  if (baseline.newConnectorsMs.length > 0) {
    const calmMs = baseline.newConnectorsMs;
    const [found, least] = [median(newConnectorsMs), median(calmMs)];
    compare("a new Connector's median is", found, least, mostConnector);
    const [slow, calmSlow] = [quantile(newConnectorsMs, 0.9), quantile(calmMs, 0.9)];
    compare("a new Connector's p90 is", slow, calmSlow, mostConnector);
  }
  for (const { name, limitMebibytes } of attacked) {
    const most = Math.max(...(memory.get(name) ?? []));
    if (most < limitMebibytes) continue;
    problems.push(`${name} has used ${most.toFixed(0)} MiB of ${limitMebibytes}`);
  }
  if (Object.keys(counts).length === 0) problems.push("the attacker has done nothing");
  return problems;
}

/** A line of what was seen. */
export function describe(seen: Observation, baseline: Observation): string {
  const { durationsMs } = seen.neighbour;
  const part = (what: string, found: number, calm: number): string =>
    `${what} ${found.toFixed(1)} ms (× ${(found / calm).toFixed(2)})`;
  const calm = baseline.neighbour.durationsMs;
  const memory = [...seen.memory].map(
    ([name, values]) => `${name} ≤ ${Math.max(...values).toFixed(0)} MiB`,
  );
  const connectors =
    seen.newConnectorsMs.length === 0
      ? []
      : [part("Connector", median(seen.newConnectorsMs), median(baseline.newConnectorsMs))];
  return [
    `${durationsMs.length} GETs`,
    part("median", median(durationsMs), median(calm)),
    part("p99", quantile(durationsMs, 0.99), quantile(calm, 0.99)),
    ...connectors,
    ...memory,
  ].join(", ");
}

/** The memory of each program in the last second, in MiB, by its name. */
export const memoryOf = ({ memory }: Observation): ReadonlyMap<string, number> =>
  new Map([...memory].map(([name, values]) => [name, median(values.slice(-4))]));
