/** Tasks of one key run one after the other, in the order in which they came. */
export interface KeyedQueue {
  run<T>(key: string, task: () => Promise<T>): Promise<T>;
  /** Settles when all tasks so far have ended. */
  idle(): Promise<void>;
}

export function keyedQueue(): KeyedQueue {
  const last = new Map<string, Promise<unknown>>();
  return {
    run(key, task) {
      const run = (last.get(key) ?? Promise.resolve()).then(task);
      const ended = run
        .catch(() => undefined)
        .then(() => {
          if (last.get(key) === ended) last.delete(key);
        });
      last.set(key, ended);
      return run;
    },
    async idle() {
      await Promise.all(last.values());
    },
  };
}
