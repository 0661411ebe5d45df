import type { Stoppable } from "../support/cleanup.ts";

/** Something that holds whatever is sent. */
export interface FuzzProperty {
  readonly name: string;
  /** Sets up what all runs share. */
  start(): Promise<StartedProperty>;
}

export interface StartedProperty extends Stoppable {
  /** How many inputs one run is made of. */
  readonly inputsPerRun: number;
  /** What came of all inputs so far, to see that they get somewhere. */
  summary?(): string;
  /** @throws fast-check's error with the smallest counterexample, and the seed and path that lead to it */
  check(parameters: { readonly seed: number; readonly numRuns: number }): Promise<void>;
}
