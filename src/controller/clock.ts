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

/** RFC 3339 with whole seconds, as the API server writes the times of objects. */
export const timestamp = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
