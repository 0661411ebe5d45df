/**
 * Never runs a task twice at once. Whoever asks while it runs gets a run that begins afterwards, and
 * so sees all that was there when they asked; those who wait share one run.
 */
export function oneAtATime(task: () => Promise<void>): () => Promise<void> {
  let last: Promise<unknown> = Promise.resolve();
  let waiting: Promise<void> | undefined;
  return () => {
    if (waiting !== undefined) return waiting;
    waiting = last.then(() => {
      waiting = undefined;
      return task();
    });
    last = waiting.catch(() => undefined);
    return waiting;
  };
}
