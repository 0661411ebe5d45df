/** Queues, shared runs and waits: what of asynchronous work may run at the same time. */

/** Runs tasks of one key one after the other, in the order of their calls. Tasks of different keys run at the same time. */
export interface KeyedQueue {
  /**
   * Runs a task when all earlier ones of its key have ended. A task whose signal is aborted while it waits leaves the
   * queue, and the call rejects with the signal's reason. A task that has begun runs to its end.
   */
  run<T>(key: string, task: () => Promise<T>, signal?: AbortSignal): Promise<T>;
  /** Settles when all tasks so far have ended. */
  idle(): Promise<void>;
}

/** Creates an empty queue. */
export function createKeyedQueue(): KeyedQueue {
  const tails = new Map<string, Promise<unknown>>();
  return {
    async run(key, task, signal) {
      const before = tails.get(key);
      const { promise: done, resolve: leave } = Promise.withResolvers<void>();
      // Who leaves early must not let the next one in before those ahead are through.
      const tail = Promise.all([before, done]);
      tails.set(key, tail);
      try {
        signal?.throwIfAborted();
        if (before !== undefined) await settledOrAborted(before, signal);
        return await task();
      } finally {
        leave();
        void tail.then(() => {
          if (tails.get(key) === tail) tails.delete(key);
        });
      }
    },
    async idle() {
      await Promise.all(tails.values());
    },
  };
}

/**
 * Awaits a promise, but no longer than until a signal is aborted.
 * @throws the promise's own error, or the signal's reason once it is aborted; the promise goes on then
 */
export function settledOrAborted<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/** A call that several callers wait for. It goes on until it has an outcome, or the last of them has gone. */
export class SharedCall<T> {
  readonly #abort = new AbortController();
  readonly #outcome: Promise<T>;
  #waiting = 0;
  #isSettled = false;

  /** @param task is called at once; its signal is aborted when nobody waits for it any more */
  constructor(task: (signal: AbortSignal) => Promise<T>) {
    this.#outcome = task(this.#abort.signal);
    const settle = (): void => {
      this.#isSettled = true;
    };
    this.#outcome.then(settle, settle);
  }

  /** Whether all who waited have gone before the outcome. Nobody may begin to wait for it then. */
  get isAbandoned(): boolean {
    return this.#abort.signal.aborted;
  }

  /** Settles as the call does. It does not count as somebody who waits. */
  get outcome(): Promise<T> {
    return this.#outcome;
  }

  /**
   * Waits for the outcome.
   * @param signal of the caller, who goes when it is aborted
   * @throws what the task throws, or the signal's reason
   */
  async wait(signal?: AbortSignal): Promise<T> {
    this.#waiting += 1;
    try {
      return await settledOrAborted(this.#outcome, signal);
    } finally {
      this.#waiting -= 1;
      if (this.#waiting === 0 && !this.#isSettled) {
        this.#abort.abort(new Error("nobody waits for it any more"));
      }
    }
  }
}

/**
 * Runs a task once at a time for each key. Whoever calls while it runs gets a run that begins afterwards, which
 * sees everything that was there at the time of the call. All callers that wait share that run, and its error.
 * @returns the function to call; without a key there is one run at a time in all
 */
export function shareRuns<T>(task: (key: string) => Promise<T>): (key?: string) => Promise<T> {
  const last = new Map<string, Promise<unknown>>();
  const waiting = new Map<string, Promise<T>>();
  return (key = "") => {
    const shared = waiting.get(key);
    if (shared !== undefined) return shared;
    const run = (last.get(key) ?? Promise.resolve()).then(() => {
      waiting.delete(key);
      return task(key);
    });
    waiting.set(key, run);
    const ended = run
      .catch(() => undefined)
      .then(() => {
        if (last.get(key) === ended) last.delete(key);
      });
    last.set(key, ended);
    return run;
  };
}
