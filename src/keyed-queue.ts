/** Tasks of one key run one after the other, in the order in which they came. */
export interface KeyedQueue {
  /**
   * A task whose signal is aborted while it waits leaves the queue and rejects with the signal's
   * reason; once it runs, it is waited for.
   */
  run<T>(key: string, task: () => Promise<T>, signal?: AbortSignal): Promise<T>;
  /** Settles when all tasks so far have ended. */
  idle(): Promise<void>;
}

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

function settledOrAborted(
  promise: Promise<unknown>,
  signal: AbortSignal | undefined,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    void promise.then(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    });
  });
}
