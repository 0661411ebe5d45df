import { describeError, type Log, type LogFields } from "../log.ts";

/** Runs a task again and again, with so many milliseconds between, until the returned function is called. */
export type Every = (intervalMs: number, task: () => void) => () => void;

/** The real one. It doesn't keep the process alive. */
export const every: Every = (intervalMs, task) => {
  const timer = setInterval(task, intervalMs).unref();
  return () => clearInterval(timer);
};

export interface RefreshScheduleOptions {
  /** Brings something up to date, and tells when it is due next: milliseconds, as `now` gives them. */
  readonly refresh: (id: string) => Promise<number>;
  readonly now: () => number;
  readonly every: Every;
  readonly log: Log;
  /** What a log line says of it. */
  readonly fieldsOf: (id: string) => LogFields;
}

/** What is due when. One that takes its time, or fails, holds up no other. */
export interface RefreshSchedule {
  /** It has been brought up to date, and is due again at this time. */
  set(id: string, dueAt: number): void;
  /** It is due now. */
  expedite(id: string): void;
  forget(id: string): void;
  stop(): void;
}

/**
 * The clock is looked at each second, instead of a timer for each due time: timers stand still while
 * a machine sleeps, and fire at once where the time is more than 24 days away.
 */
const tickMs = 1000;
const firstRetryMs = 1000;
const maxRetryMs = 60_000;

interface ScheduledRefresh {
  dueAt: number;
  failures: number;
  /** What is wrong, as it was logged. */
  loggedError: string | undefined;
}

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
      const trouble = describeError(error);
      if (entry.loggedError !== trouble) {
        const message = "a volume can't be brought up to date, retrying";
        log("error", message, { ...fieldsOf(id), error });
      }
      entry.loggedError = trouble;
      const retryMs = Math.min(maxRetryMs, firstRetryMs * 2 ** entry.failures++);
      // It may have been hurried in the meantime.
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
