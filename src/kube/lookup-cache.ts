import { setTimeout as sleep } from "node:timers/promises";
import { Unavailable } from "../connector/platform.ts";

/** An answer, and how long it holds. */
export interface CachedResult<T> {
  readonly value: T;
  /** For how many milliseconds it is not asked again. */
  readonly freshMs: number;
  /** For how many milliseconds it serves while nobody can be asked; no longer than fresh unless given. */
  readonly usableMs?: number;
}

export interface LookupCacheOptions {
  /** How many answers are kept; the one that was not used for longest goes first. */
  readonly capacity: number;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Is told where each answer came from. */
  readonly tell?: ObserveLookup | undefined;
}

/**
 * `cached`: from the cache, or from a look that was under way; `asked`: from a look; `stale`: from the
 * cache, for want of a new one; `failed`: there was none.
 */
export type ObserveLookup = (outcome: "cached" | "asked" | "stale" | "failed") => void;

/** Answers to questions, by a key that says all that the answer depends on. */
export interface LookupCache<T> {
  /**
   * The answer that is kept, or what `look` finds; one look at a time for a key.
   * @param fresh looks again, unless it has just done so for this very reason
   * @throws what `look` throws. Where that is Unavailable, or where it takes long, an answer that is
   * still usable serves.
   */
  get(key: string, look: () => Promise<CachedResult<T>>, fresh?: boolean): Promise<T>;
}

interface Entry<T> {
  readonly value: T;
  freshUntil: number;
  readonly usableUntil: number;
  /** Until when nobody gets past it. */
  readonly heldUntil: number;
  /** Which look has found it. */
  readonly look: number;
}

/** A caller waits so long for a new answer where an old one is still usable. */
const patienceMs = 1_000;
/** While nobody can be asked, a question is put this often. */
const retryMs = 5_000;
/** A registry that refuses every request must not make each of them a question to the API server. */
const freshEveryMs = 1_000;

export function createLookupCache<T>(options: LookupCacheOptions): LookupCache<T> {
  const { capacity, now, tell = () => undefined } = options;
  const entries = new Map<string, Entry<T>>();
  const looks = new Map<string, Promise<T>>();
  let lookCount = 0;

  function keep(key: string, entry: Entry<T>): void {
    entries.delete(key); // the last that was set is the last that a Map names
    entries.set(key, entry);
    for (const oldest of entries.keys()) {
      if (entries.size <= capacity) return;
      entries.delete(oldest);
    }
  }

  async function lookUp(
    key: string,
    look: () => Promise<CachedResult<T>>,
    fresh: boolean,
  ): Promise<T> {
    lookCount += 1;
    const order = lookCount;
    try {
      const found = await look();
      tell("asked");
      const isLatest = (entries.get(key)?.look ?? 0) <= order; // a later look may have been faster
      if (isLatest) keep(key, entryOf(found, order, fresh));
      return found.value;
    } catch (error) {
      return insteadOfNew(key, error, fresh);
    }
  }

  /** What serves for want of a new answer. @throws the error where nothing does */
  function insteadOfNew(key: string, error: unknown, fresh: boolean): T {
    const entry = entries.get(key);
    const isUsable = entry !== undefined && entry.usableUntil > now() && !fresh;
    const serves = isUsable && error instanceof Unavailable;
    tell(serves ? "stale" : "failed");
    if (!serves) throw error;
    entry.freshUntil = Math.min(now() + retryMs, entry.usableUntil);
    return entry.value;
  }

  function entryOf(found: CachedResult<T>, look: number, fresh: boolean): Entry<T> {
    const { value, freshMs, usableMs = freshMs } = found;
    const heldUntil = fresh ? now() + freshEveryMs : 0;
    return { value, look, heldUntil, freshUntil: now() + freshMs, usableUntil: now() + usableMs };
  }

  /** One look at a time. */
  function looking(key: string, look: () => Promise<CachedResult<T>>, fresh: boolean): Promise<T> {
    // A look that began before it was known that the answer is wrong may find the wrong one again.
    const lookKey = fresh ? `fresh ${key}` : `any ${key}`;
    const running = looks.get(lookKey);
    if (running !== undefined) {
      tell("cached");
      return running;
    }
    const started = lookUp(key, look, fresh).finally(() => looks.delete(lookKey));
    looks.set(lookKey, started);
    return started;
  }

  return {
    async get(key, look, fresh = false) {
      const entry = entries.get(key);
      if (entry !== undefined && (fresh ? entry.heldUntil : entry.freshUntil) > now()) {
        keep(key, entry);
        tell("cached");
        return entry.value;
      }
      const found = looking(key, look, fresh);
      if (fresh || entry === undefined || entry.usableUntil <= now()) return found;
      return Promise.race([found, sleep(patienceMs, entry.value, { ref: false })]);
    },
  };
}
