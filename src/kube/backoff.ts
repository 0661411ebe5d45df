/** Delays between attempts: exponential backoff with jitter. */
export interface Backoff {
  /** Milliseconds to wait before the next attempt, longer with each call. */
  nextDelayMs(): number;
  /** Starts again from the initial delay, after an attempt has succeeded. */
  reset(): void;
}

export interface BackoffOptions {
  readonly initialMs: number;
  /** The delay doubles until it is this long. */
  readonly maxMs: number;
  /**
   * In [0, 1). Delays are spread over the second half of their length, so that many clients don't come back at once.
   */
  readonly random: () => number;
}

/** Creates a backoff, which begins with the initial delay. */
export function createBackoff({ initialMs, maxMs, random }: BackoffOptions): Backoff {
  let delayMs = initialMs;
  return {
    nextDelayMs() {
      const jitteredMs = delayMs * (0.5 + random() / 2);
      delayMs = Math.min(delayMs * 2, maxMs);
      return jitteredMs;
    },
    reset() {
      delayMs = initialMs;
    },
  };
}
