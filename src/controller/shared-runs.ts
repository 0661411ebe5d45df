/**
 * Never runs a task twice at once for a key. Whoever asks while it runs gets a run that begins
 * afterwards, and so sees all that was there when they asked; those who wait share one run.
 */
export function sharedRuns<T>(task: (key: string) => Promise<T>): (key: string) => Promise<T> {
  const last = new Map<string, Promise<unknown>>();
  const waiting = new Map<string, Promise<T>>();
  return (key) => {
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
