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
  /** The group of a key, such as its namespace; all keys are one group where it is not given. Groups take turns. */
  readonly groupOf?: (key: string) => string;
  /** How many keys of one group are run at once at most; as many as there are places where it is not given. */
  readonly groupConcurrency?: number;
  /** Whether a key goes before the others of its group. */
  readonly isUrgent?: (key: string) => boolean;
  /** The delays after runs that fail. */
  readonly retry: Pick<BackoffOptions, "initialMs" | "maxMs">;
  readonly clock: Clock;
  /** A random number in [0, 1), for jitter. */
  readonly random: () => number;
}

/**
 * A work queue as controllers have it, by keys. A key is never run twice at once, however often it is added. A place that
 * becomes free goes to the group that has the fewest keys running, and of those to the one that has waited longest.
 */
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
  const ready = new FairOrder(options);
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
    while (!stopped && runs.size < concurrency) {
      const key = ready.take();
      if (key === undefined) return;
      const item = getItem(key);
      item.dueAt = Number.POSITIVE_INFINITY;
      item.running = true;
      const running = runOnce(key, item).then(() => {
        runs.delete(running);
        ready.leave(key);
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

/** A group with keys that are ready or running. */
interface Group {
  readonly ready: Set<string>;
  running: number;
  /** The turn in which one of its keys was taken last; 0 for none. */
  lastTurn: number;
}

/** Keys that are ready to be run, in the order in which their groups take turns. */
class FairOrder {
  readonly #options: Pick<WorkQueueOptions, "groupOf" | "groupConcurrency" | "isUrgent">;
  readonly #groups = new Map<string, Group>();
  #turn = 0;

  constructor(options: Pick<WorkQueueOptions, "groupOf" | "groupConcurrency" | "isUrgent">) {
    this.#options = options;
  }

  add(key: string): void {
    const name = this.#nameOf(key);
    const group = this.#groups.get(name) ?? { ready: new Set(), running: 0, lastTurn: 0 };
    this.#groups.set(name, group);
    group.ready.add(key);
  }

  /** Takes the key that is to be run next. @returns undefined where none may be run now */
  take(): string | undefined {
    const group = this.#nextGroup();
    if (group === undefined) return undefined;
    const { isUrgent } = this.#options;
    const urgent = isUrgent && [...group.ready].find(isUrgent);
    const key = urgent ?? firstOf(group.ready);
    group.ready.delete(key);
    group.running += 1;
    this.#turn += 1;
    group.lastTurn = this.#turn;
    return key;
  }

  /** Notes that a key that was taken does not run any more. */
  leave(key: string): void {
    const name = this.#nameOf(key);
    const group = this.#groups.get(name);
    if (group === undefined) return;
    group.running -= 1;
    if (group.running === 0 && group.ready.size === 0) this.#groups.delete(name);
  }

  #nextGroup(): Group | undefined {
    const { groupConcurrency = Number.POSITIVE_INFINITY } = this.#options;
    let next: Group | undefined;
    for (const group of this.#groups.values()) {
      const mayRun = group.ready.size > 0 && group.running < groupConcurrency;
      if (mayRun && (next === undefined || isBefore(group, next))) next = group;
    }
    return next;
  }

  #nameOf(key: string): string {
    return this.#options.groupOf?.(key) ?? "";
  }
}

const isBefore = (one: Group, other: Group): boolean =>
  one.running < other.running || (one.running === other.running && one.lastTurn < other.lastTurn);

function firstOf(keys: ReadonlySet<string>): string {
  const [first] = keys;
  if (first === undefined) throw new Error("a group that is ready has a key");
  return first;
}
