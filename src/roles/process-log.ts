/**
 * The log of this process, on its stderr. Whatever stderr is (a file on a full disk, a pipe that nobody reads), the log
 * never throws and never waits: what can't be written stays in a bounded queue, and what does not fit there is counted.
 */
import { constants, fstatSync, openSync, type Stats, writeSync } from "node:fs";
import { attempt, errorCode } from "../error-code.ts";
import { createLog, type Log } from "../log.ts";
import type { DroppedLines } from "../metrics/metrics.ts";
import { createLogQueue, type Gap, logBounds } from "./log-queue.ts";

/** What the log is written to. */
export interface LogOutput {
  /** Writes what can be written without waiting. @returns how many bytes. @throws Error where it can't be written now */
  readonly write: (bytes: Buffer) => number;
  /** Whole lines are written together up to so many bytes. */
  readonly maxWriteBytes: number;
}

/** The log of a process. */
export interface ProcessLog {
  readonly log: Log;
  /** How many lines were left out since the process began, for all sources and reasons. */
  readonly droppedLines: () => readonly DroppedLines[];
}

/** More than this is written at once, and not at the end of the turn of the event loop. */
const maxGatheredBytes = 256 * 1024;
/** No turn of the event loop writes more than about so much. */
const maxTurnBytes = 1024 * 1024;
/** The pauses between attempts to write, while nothing can be written. */
const minRetryMs = 5;
const maxRetryMs = 250;
/** How often it is looked whether a source whose lines are left out may have lines again. */
const gapCheckMs = 1_000;
/** How long the end of the process may wait for a slow reader. */
const maxEndMs = 1_000;

/**
 * Makes the log of this process. Lines of one turn of the event loop are written together, since a system call for each
 * costs a busy proxy more than the lines do. Where the process exits or dies of an exception, the lines that wait are
 * written first, for a second at most. A signal that nobody handles may lose the lines of its turn.
 */
export function createProcessLog(output: LogOutput = openStderr()): ProcessLog {
  const monotonicMs = (): number => performance.now();
  let lastLine = "";
  const logGap = createLog((line) => {
    lastLine = line;
  }, Date.now);
  const queue = createLogQueue({
    monotonicMs,
    describeGap(gap) {
      describeGap(gap, logGap);
      return lastLine;
    },
  });
  /** Lines that were taken from the queue and are not written yet, or not to their end. */
  let begun: Buffer = Buffer.alloc(0);
  let isScheduled = false;
  let isStalled = false;
  let retryMs = minRetryMs;

  /** @returns how many bytes were written; undefined where none waits, an Error where none can be written now */
  const writeSome = (): number | Error | undefined => {
    if (begun.length === 0) begun = Buffer.from(queue.take(output.maxWriteBytes));
    if (begun.length === 0) return undefined;
    try {
      const written = output.write(begun);
      begun = begun.subarray(written);
      return written;
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  };
  const writeTurn = (): void => {
    isScheduled = false;
    for (let turnBytes = 0; turnBytes < maxTurnBytes; ) {
      const written = writeSome();
      if (written === undefined) return;
      if (written instanceof Error || written === 0) {
        waitForOutput();
        return;
      }
      retryMs = minRetryMs;
      turnBytes += written;
    }
    schedule();
  };
  const schedule = (): void => {
    if (isScheduled || isStalled) return;
    isScheduled = true;
    setImmediate(writeTurn);
  };
  const waitForOutput = (): void => {
    isStalled = true;
    setTimeout(() => {
      isStalled = false;
      writeTurn();
    }, retryMs).unref();
    retryMs = Math.min(retryMs * 2, maxRetryMs);
  };
  let gapTimer: NodeJS.Timeout | undefined;
  const watchGaps = (): void => {
    gapTimer ??= setInterval(() => {
      queue.endGaps(false);
      if (queue.bytes() > 0) schedule();
      if (queue.hasGaps()) return;
      clearInterval(gapTimer);
      gapTimer = undefined;
    }, gapCheckMs).unref();
  };

  process.on("exit", () => {
    const endMs = monotonicMs() + maxEndMs;
    const isWritten = (): boolean => writeToEnd(writeSome, () => monotonicMs() < endMs);
    if (!isWritten()) return;
    queue.endGaps(true);
    isWritten();
  });
  const log = createLog((line, origin) => {
    queue.add(line, origin);
    if (queue.hasGaps()) watchGaps();
    if (queue.bytes() > maxGatheredBytes && !isStalled) writeTurn();
    else schedule();
  }, Date.now);
  return { log, droppedLines: queue.droppedLines };
}

/** Nobody wakes those who wait for it: `Atomics.wait` is the one way to sleep without the event loop. */
const neverWoken = new Int32Array(new SharedArrayBuffer(4));

/**
 * Writes all that waits, and sleeps where a reader is slow.
 * @returns whether all was written: not after an error that no reader can mend, such as that of a full disk, and not after the time
 */
function writeToEnd(writeSome: () => number | Error | undefined, hasTime: () => boolean): boolean {
  while (hasTime()) {
    const written = writeSome();
    if (written === undefined) return true;
    if (written instanceof Error && errorCode(written) !== "EAGAIN") return false;
    if (written instanceof Error || written === 0) {
      Atomics.wait(neverWoken, 0, 0, minRetryMs);
    }
  }
  return false;
}

/** Logs a gap: how many lines were left out, why, and whose they were. */
function describeGap({ source, identity, reason, count, durationMs }: Gap, log: Log): void {
  const pod = identity?.pod;
  log("warning", `${count} lines were left out: ${whyDropped(source, reason)}`, {
    user: identity?.user,
    pod: pod && `${pod.namespace}/${pod.name}`,
    reason,
    count,
    durationMs,
  });
}

function whyDropped(source: Gap["source"], reason: Gap["reason"]): string {
  const isStranger = source === "stranger";
  const whose = {
    process: "the process's own lines",
    stranger: "lines of requests without an identity",
    subject: "lines of this user",
  }[source];
  if (reason === "queue") {
    return `stderr is read too slowly or can't be written, and too many ${whose} were waiting`;
  }
  const linesPerSecond = isStranger
    ? logBounds.strangerLinesPerSecond
    : logBounds.subjectLinesPerSecond;
  return `there were more than ${linesPerSecond} ${whose} a second`;
}

/** The file descriptor of stderr. */
const stderr = 2;
/** The kernel writes so many bytes to a pipe as a whole or not at all (PIPE_BUF), so that other writers never tear a line. */
const pipeWriteBytes = 4_096;
const fileWriteBytes = 64 * 1024;

/**
 * Opens stderr so that a write never waits for a reader. A pipe and a terminal are opened a second time, since
 * O_NONBLOCK on stderr itself would also hold for all other programs that write to the same one, and fail theirs.
 * A socket can't be opened again, and a pipe of another user can't either: those are switched, as Node does it for
 * process.stderr, which also switches them back at the end. A file is written as it is.
 */
function openStderr(): LogOutput {
  const stats = attempt<Stats | undefined, undefined>(
    () => fstatSync(stderr),
    () => undefined,
  );
  if (stats?.isFIFO() || stats?.isCharacterDevice()) {
    const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants;
    const own = attempt<number | undefined, undefined>(
      () => openSync(`/proc/self/fd/${stderr}`, O_WRONLY | O_NONBLOCK | O_NOCTTY),
      () => undefined,
    );
    if (own !== undefined) {
      return { write: (bytes) => writeSync(own, bytes), maxWriteBytes: pipeWriteBytes };
    }
  }
  const write = (bytes: Buffer): number => writeSync(stderr, bytes);
  if (!stats?.isFIFO() && !stats?.isSocket()) return { write, maxWriteBytes: fileWriteBytes };
  attempt(
    () => void process.stderr, // its getter does it
    () => undefined,
  );
  return { write, maxWriteBytes: stats.isFIFO() ? pipeWriteBytes : fileWriteBytes };
}
