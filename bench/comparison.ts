import { cpuSecondsOf } from "../test/support/process-view.ts";
import type { Contestant } from "./contestants.ts";

/** What was done, in bytes or requests, and how long it took. */
export interface Measured {
  readonly amount: number;
  readonly seconds: number;
}

export interface Sample extends Measured {
  /** Of the proxy alone: unlike time, it does not depend much on what else the machine does. */
  readonly cpuSeconds: number;
}

/** The same work, done through each contestant. */
export interface Comparison {
  readonly label: string;
  readonly unit: "GB/s" | "requests/s";
  /** By the contestant's name; the samples of a round have the same index. */
  readonly samples: ReadonlyMap<string, readonly Sample[]>;
  /** What the connector is to reach of what it is compared with: nginx with its default buffers, unless said otherwise. */
  readonly target: number | undefined;
}

/** Lets all contestants take their turns, first once for nothing: A B C, A B C, … */
export async function takeTurns<One extends Pick<Contestant, "name" | "pid">>(
  contestants: readonly One[],
  rounds: number,
  work: (contestant: One) => Promise<Measured>,
): Promise<ReadonlyMap<string, readonly Sample[]>> {
  const samples = new Map(contestants.map(({ name }): [string, Sample[]] => [name, []]));
  for (let round = 0; round <= rounds; round += 1) {
    for (const contestant of contestants) {
      const sample = await sampleOf(contestant, work);
      if (round > 0) samples.get(contestant.name)?.push(sample);
    }
  }
  return samples;
}

async function sampleOf<One extends Pick<Contestant, "name" | "pid">>(
  contestant: One,
  work: (contestant: One) => Promise<Measured>,
): Promise<Sample> {
  const { pid } = contestant;
  const cpu = async (): Promise<number> => (pid === undefined ? 0 : cpuSecondsOf(pid));
  const before = await cpu();
  const measured = await work(contestant);
  return { ...measured, cpuSeconds: (await cpu()) - before };
}
