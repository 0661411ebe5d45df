import { type Backoff, type BackoffOptions, createBackoff } from "../kube/backoff.ts";

export interface WorkQueueOptions {
  /** Does what there is to do for a key. @returns after how many milliseconds it wants to be run again, undefined for never */
  readonly run: (key: string) => Promise<number | undefined>;
  /** Is told why a run has failed. It is run again with a back-off. */
  readonly failed: (key: string, error: unknown) => void;
  /** How many keys are run at once. */
  readonly concurrency: number;
  /** Milliseconds. */
  readonly retry: Pick<BackoffOptions, "initialMs" | "maxMs">;
  readonly clock: Clock;
  /** In [0, 1). */
  readonly random: () => number;
}

/** Things to look after, by their keys. A key is never run twice at once, however often it is added. */
export interface WorkQueue {
  /** Has a key run within so many milliseconds. What is added while it runs is run afterwards. */
  add(key: string, delayMs?: number): void;
  /** Begins nothing new, and waits for what is running. */
  stop(): Promise<void>;
}

interface Entry {
  /** When its next run is due: Infinity where none is planned. */
  dueAt: number;
  cancel: () => void;
  running: boolean;
  readonly backoff: Backoff;
}

const nothing = (): void => {};

export function createWorkQueue(options: WorkQueueOptions): WorkQueue {
  const { run, failed, concurrency, clock } = options;
  const entries = new Map<string, Entry>();
  const ready = new Set<string>();
  const runs = new Set<Promise<void>>();
  let stopped = false;

  function entryOf(key: string): Entry {
    const backoff = createBackoff({ ...options.retry, random: options.random });
    const entry = entries.get(key) ?? {
      ...{ dueAt: Number.POSITIVE_INFINITY, cancel: nothing, running: false },
      backoff,
    };
    entries.set(key, entry);
    return entry;
  }

  /** Has an entry that does not run become ready when it is due. */
  function wait(key: string, entry: Entry): void {
    const delay = entry.dueAt - clock.now();
    const becomeReady = (): void => {
      ready.add(key);
      begin();
    };
    if (delay <= 0) becomeReady();
    else entry.cancel = clock.after(delay, becomeReady);
  }

  function begin(): void {
    for (const key of ready) {
      if (stopped || runs.size >= concurrency) return;
      ready.delete(key);
      const entry = entryOf(key);
      entry.dueAt = Number.POSITIVE_INFINITY;
      entry.running = true;
      const running = runOnce(key, entry).then(() => {
        runs.delete(running);
        entry.running = false;
        if (stopped) return;
        if (entry.dueAt === Number.POSITIVE_INFINITY) entries.delete(key);
        else wait(key, entry);
        begin();
      });
      runs.add(running);
    }
  }

  async function runOnce(key: string, entry: Entry): Promise<void> {
    try {
      const delay = await run(key);
      entry.backoff.reset();
      if (delay !== undefined) add(key, delay);
    } catch (error) {
      failed(key, error);
      add(key, entry.backoff.nextDelayMs());
    }
  }

  function add(key: string, delayMs = 0): void {
    if (stopped) return;
    const entry = entryOf(key);
    const dueAt = clock.now() + delayMs;
    if (dueAt >= entry.dueAt) return;
    entry.cancel();
    entry.dueAt = dueAt;
    if (!entry.running) wait(key, entry);
  }

  return {
    add,
    async stop() {
      stopped = true;
      for (const { cancel } of entries.values()) cancel();
      await Promise.all(runs);
    },
  };
}

/** Time, as the controller sees it. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Acts once, after so many milliseconds, unless the function that it returns is called before. */
  after(ms: number, action: () => void): () => void;
}

export const systemClock: Clock = {
  now: Date.now,
  after(ms, action) {
    const timer = setTimeout(action, ms);
    return () => clearTimeout(timer);
  },
};
