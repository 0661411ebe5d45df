import { describeError, type Log, type LogFields } from "../log.ts";

/** Runs a task at an interval in milliseconds, until the returned function is called. */
export type Every = (intervalMs: number, task: () => void) => () => void;

/** Runs a task at an interval by a timer, which doesn't keep the process alive. */
export const every: Every = (intervalMs, task) => {
  const timer = setInterval(task, intervalMs).unref();
  return () => clearInterval(timer);
};

/** What a schedule refreshes, and by which clock. */
export interface RefreshScheduleOptions {
  /** Refreshes a volume. Returns when it is due next, in milliseconds since 1970. */
  readonly refresh: (id: string) => Promise<number>;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly every: Every;
  readonly log: Log;
  /** The fields of a log line about a volume. */
  readonly fieldsOf: (id: string) => LogFields;
}

/** When each volume is to be refreshed. A refresh that is slow or fails does not delay the others. */
export interface RefreshSchedule {
  /** Sets when a volume is due next, in milliseconds since 1970. */
  set(id: string, dueAt: number): void;
  /** Makes a volume due now. */
  expedite(id: string): void;
  /** Removes a volume. */
  forget(id: string): void;
  /** Starts no further refreshes. */
  stop(): void;
}

/**
 * How often the clock is read. There is no timer for each due time: timers stop while
 * a machine sleeps, and fire at once where the time is more than 24 days away.
 */
const tickMs = 1000;
const firstRetryMs = 1000;
const maxRetryMs = 60_000;

interface ScheduledRefresh {
  /** Milliseconds since 1970; infinite while a refresh runs. */
  dueAt: number;
  failures: number;
  /** The error of the last refresh, which was logged; undefined after a refresh without one. */
  loggedError: string | undefined;
}

/** Creates an empty schedule, and starts to read the clock. */
export function createRefreshSchedule(options: RefreshScheduleOptions): RefreshSchedule {
  const { refresh, now, log, fieldsOf } = options;
  const entries = new Map<string, ScheduledRefresh>();

  const attempt = async (id: string, entry: ScheduledRefresh): Promise<void> => {
    entry.dueAt = Number.POSITIVE_INFINITY;
    try {
      const next = await refresh(id);
      if (entry.loggedError !== undefined)
        log("info", "a volume is up to date again", fieldsOf(id));
      entry.failures = 0;
      entry.loggedError = undefined;
      entry.dueAt = Math.min(entry.dueAt, next);
    } catch (error) {
      const described = describeError(error);
      if (entry.loggedError !== described) {
        const message = "a volume can't be brought up to date, retrying";
        log("error", message, { ...fieldsOf(id), error });
      }
      entry.loggedError = described;
      const retryMs = Math.min(maxRetryMs, firstRetryMs * 2 ** entry.failures++);
      // It may have been made due in the meantime.
      entry.dueAt = Math.min(entry.dueAt, now() + retryMs);
    }
  };
  const stop = options.every(tickMs, () => {
    for (const [id, entry] of entries) if (entry.dueAt <= now()) void attempt(id, entry);
  });

  return {
    set: (id, dueAt) => void entries.set(id, { dueAt, failures: 0, loggedError: undefined }),
    expedite(id) {
      const entry = entries.get(id);
      if (entry !== undefined) entry.dueAt = now();
    },
    forget: (id) => void entries.delete(id),
    stop,
  };
}
