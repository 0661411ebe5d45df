/** What may be hashed in all: as much as a fast network brings, and a good part of an image at once. Bytes, and bytes per second. */
export const mostHashed: HashLimits = { atOnce: 32 * 1024 * 1024, perSecond: 128 * 1024 * 1024 };

export interface HashLimits {
  readonly atOnce: number;
  readonly perSecond: number;
}

/** Hashing a byte costs more than passing it on, so there has to be an end to it where bytes come faster than over most networks. */
export interface HashBudget {
  /** Takes so many bytes, or none; then it is false. */
  take(bytes: number): boolean;
}

/** @param now milliseconds of a clock that never goes back */
export function createHashBudget(now: () => number, most: HashLimits = mostHashed): HashBudget {
  let left: number = most.atOnce;
  let at = now();
  return {
    take(bytes) {
      const before = at;
      at = now();
      left = Math.min(most.atOnce, left + ((at - before) / 1000) * most.perSecond);
      if (bytes > left) return false;
      left -= bytes;
      return true;
    },
  };
}
