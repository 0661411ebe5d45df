/** How long to wait before the next try. */
export interface Backoff {
  /** Milliseconds, longer with each call. */
  next(): number;
  /** Starts again from the first delay, after something has worked. */
  reset(): void;
}

export interface BackoffOptions {
  readonly firstMs: number;
  readonly longestMs: number;
  /** In [0, 1). Delays are spread over half of their length, so that many clients don't come back at once. */
  readonly random: () => number;
}

export function createBackoff({ firstMs, longestMs, random }: BackoffOptions): Backoff {
  let delay = firstMs;
  return {
    next() {
      const jittered = delay * (0.5 + random() / 2);
      delay = Math.min(delay * 2, longestMs);
      return jittered;
    },
    reset() {
      delay = firstMs;
    },
  };
}
