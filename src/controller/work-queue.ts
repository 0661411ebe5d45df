import { type Backoff, type BackoffOptions, createBackoff } from "../kube/backoff.ts";

/** A clock with timers. */
export interface Clock {
  /** The time, in milliseconds since 1970. */
  readonly now: () => number;
  /** Calls an action once, after so many milliseconds. @returns a function that cancels it */
  after(ms: number, action: () => void): () => void;
}

/** The clock of this process. */
export const systemClock: Clock = {
  now: Date.now,
  after(ms, action) {
    const timer = setTimeout(action, ms);
    return () => clearTimeout(timer);
  },
};

/** What a work queue needs. */
export interface WorkQueueOptions {
  /** Does the work for a key. @returns after how many milliseconds the key is run again; undefined for never */
  readonly run: (key: string) => Promise<number | undefined>;
  /** Is called where a run has failed. The key is run again with a backoff. */
  readonly onError: (key: string, error: unknown) => void;
  /** How many keys are run at once at most. */
  readonly concurrency: number;
  /** The delays after runs that fail. */
  readonly retry: Pick<BackoffOptions, "initialMs" | "maxMs">;
  readonly clock: Clock;
  /** A random number in [0, 1), for jitter. */
  readonly random: () => number;
}

/** A work queue as controllers have it, by keys. A key is never run twice at once, however often it is added. */
export interface WorkQueue {
  /**
   * Has a key run after so many milliseconds, at once unless given. A key that is added while it runs is run again
   * afterwards.
   */
  add(key: string, delayMs?: number): void;
  /** Begins nothing new, and waits for running keys. */
  stop(): Promise<void>;
}

/** A key in the queue. */
interface QueueItem {
  /** When its next run is due, in milliseconds since 1970; Infinity where none is planned. */
  dueAt: number;
  cancel: () => void;
  running: boolean;
  readonly backoff: Backoff;
}

const noop = (): void => {};

/** Creates a queue, which begins to run keys as soon as they are added. */
export function createWorkQueue(options: WorkQueueOptions): WorkQueue {
  const { run, onError, concurrency, clock } = options;
  const items = new Map<string, QueueItem>();
  const ready = new Set<string>();
  const runs = new Set<Promise<void>>();
  let stopped = false;

  function getItem(key: string): QueueItem {
    const backoff = createBackoff({ ...options.retry, random: options.random });
    const item = items.get(key) ?? {
      dueAt: Number.POSITIVE_INFINITY,
      cancel: noop,
      running: false,
      backoff,
    };
    items.set(key, item);
    return item;
  }

  /** Makes an item that does not run ready when it is due. */
  function wait(key: string, item: QueueItem): void {
    const delayMs = item.dueAt - clock.now();
    const becomeReady = (): void => {
      ready.add(key);
      begin();
    };
    if (delayMs <= 0) becomeReady();
    else item.cancel = clock.after(delayMs, becomeReady);
  }

  function begin(): void {
    for (const key of ready) {
      if (stopped || runs.size >= concurrency) return;
      ready.delete(key);
      const item = getItem(key);
      item.dueAt = Number.POSITIVE_INFINITY;
      item.running = true;
      const running = runOnce(key, item).then(() => {
        runs.delete(running);
        item.running = false;
        if (stopped) return;
        if (item.dueAt === Number.POSITIVE_INFINITY) items.delete(key);
        else wait(key, item);
        begin();
      });
      runs.add(running);
    }
  }

  async function runOnce(key: string, item: QueueItem): Promise<void> {
    try {
      const requeueAfterMs = await run(key);
      item.backoff.reset();
      if (requeueAfterMs !== undefined) add(key, requeueAfterMs);
    } catch (error) {
      onError(key, error);
      add(key, item.backoff.nextDelayMs());
    }
  }

  function add(key: string, delayMs = 0): void {
    if (stopped) return;
    const item = getItem(key);
    const dueAt = clock.now() + delayMs;
    if (dueAt >= item.dueAt) return;
    item.cancel();
    item.dueAt = dueAt;
    if (!item.running) wait(key, item);
  }

  return {
    add,
    async stop() {
      stopped = true;
      for (const { cancel } of items.values()) cancel();
      await Promise.all(runs);
    },
  };
}
