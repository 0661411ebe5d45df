import { createLog, type Log } from "../../src/log.ts";

/** A real log whose lines a test can read. */
export interface RecordedLog {
  readonly log: Log;
  /** The lines so far, as they were written. */
  readonly lines: string[];
  /** How many lines have all of these texts in them. */
  count(...texts: readonly string[]): number;
}

export function recordedLog(): RecordedLog {
  const lines: string[] = [];
  return {
    lines,
    log: createLog(
      (line) => lines.push(line),
      () => 0,
    ),
    count: (...texts) => lines.filter((line) => texts.every((text) => line.includes(text))).length,
  };
}
