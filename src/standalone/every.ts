/** Runs a task again and again, with so many milliseconds between, until the returned function is called. */
export type Every = (intervalMs: number, task: () => void) => () => void;

/** The real one. It doesn't keep the process alive. */
export const every: Every = (intervalMs, task) => {
  const timer = setInterval(task, intervalMs).unref();
  return () => clearInterval(timer);
};
