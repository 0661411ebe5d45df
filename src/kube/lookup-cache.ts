import { AsyncLocalStorage } from "node:async_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { LRUCache } from "lru-cache";
import { type AroundRequest, Unavailable } from "../connector/platform.ts";
import { createSharedStore } from "./shared-store.ts";

/** What a lookup has found, and how long it holds. */
export interface LookupResult<T> {
  readonly value: T;
  /** For how many milliseconds the value is used without another lookup. */
  readonly freshMs: number;
  /**
   * For how many milliseconds the value is used while lookups fail with Unavailable; as long as it is fresh unless
   * given.
   */
  readonly usableMs?: number;
  /** Whether it is a refusal. These are kept apart, so that many of them displace no other value. */
  readonly isRefusal?: boolean;
  /** Whether nobody had to be asked for it. */
  readonly isUnasked?: boolean;
}

export interface LookupCacheOptions<T> {
  /**
   * How many values are kept at most, or with `sizeOf`, which size they have together. The least recently used value of
   * the owner with the most goes first.
   */
  readonly maxEntries: number;
  /** Whose value it is: a namespace. Unless given, all values have one owner. */
  readonly ownerOf?: (value: T) => string;
  /** The size of a value; 1 unless given. */
  readonly sizeOf?: (value: T) => number;
  /** The time, in milliseconds since 1970. */
  readonly now: () => number;
  /** Is called for each `get` with where its value came from. */
  readonly onLookup?: OnLookup | undefined;
}

/**
 * Is told where a value came from. `cached`: from the cache, or from a lookup that was already running; `asked`: from a
 * new lookup; `unasked`: from a new lookup that had nobody to ask; `stale`: from the cache, since the new lookup has
 * failed; `failed`: there was no value.
 */
export type OnLookup = (outcome: "cached" | "asked" | "unasked" | "stale" | "failed") => void;

/**
 * Looks up a value.
 * @param known the kept value, where it is usable and no refusal
 */
export type LookUp<T> = (known: T | undefined) => Promise<LookupResult<T>>;

/** Values that are slow to look up, by keys that say all that a value depends on. */
export interface LookupCache<T> {
  /**
   * Returns the value that is kept under a key, or what `lookUp` finds. All who wait for the same key share one lookup.
   * Where the lookup throws Unavailable, or the caller's request has waited for a second in all, a value that is still
   * usable is returned instead.
   * @param mustBeNew whether the kept value has turned out to be wrong: it is looked up again, once a second at most
   * @throws what `lookUp` throws
   */
  get(key: string, lookUp: LookUp<T>, mustBeNew?: boolean): Promise<T>;
  /** The value under a key, as long as it is fresh. */
  peek(key: string): T | undefined;
}

/** A value that is kept. All times are in milliseconds since 1970. */
interface CacheEntry<T> {
  readonly value: T;
  freshUntil: number;
  readonly usableUntil: number;
  /** Until when the value also serves those to whom it must be new. */
  readonly newUntil: number;
  /** The number of the lookup that has found it. */
  readonly lookup: number;
  readonly isRefusal: boolean;
}

/** The lookups of a request wait this long, together, for new values where old ones are still usable. */
const maxWaitMs = 1_000;

/** What is left of that. */
const patience = new AsyncLocalStorage<{ remainingMs: number }>();

/** Lets all lookups that a request makes, in whatever cache, share one time to wait. Otherwise each has its own. */
export const shareWait: AroundRequest = (run) => patience.run({ remainingMs: maxWaitMs }, run);

/** Waits for a new value, or returns the old one when the request's patience is over. */
async function waitFor<T>(found: Promise<T>, old: T): Promise<T> {
  const shared = patience.getStore() ?? { remainingMs: maxWaitMs };
  const { remainingMs } = shared;
  const begin = performance.now();
  const value = await Promise.race([found, sleep(remainingMs, old, { ref: false })]);
  // Lookups that wait side by side take of it once.
  const left = Math.max(0, remainingMs - (performance.now() - begin));
  shared.remainingMs = Math.min(shared.remainingMs, left);
  return value;
}

/** A usable value is used for this long after a lookup has failed. */
const retryMs = 5_000;
/** A registry that refuses every request must not make each of them a request to the API server. */
const newMs = 1_000;
/** How many refusals are kept. Each of them is short, and costs one more lookup where it is gone. */
const maxRefusals = 2_000;

/**
 * Creates a cache of lookups that outlives an API server which is away.
 *
 * The `fetch` of lru-cache does not fit: it has one time to live where we have two (fresh, and usable
 * while the API server is away), serves a stale value after every error or after none, joins a forced refresh to a
 * lookup that began before it, and has no limit for how long callers wait.
 */
export function createLookupCache<T>(options: LookupCacheOptions<T>): LookupCache<T> {
  const { maxEntries, now, onLookup = () => undefined } = options;
  const { ownerOf = () => "", sizeOf = () => 1 } = options;
  const values = createSharedStore<CacheEntry<T>>(maxEntries);
  const refusals = new LRUCache<string, CacheEntry<T>>({ max: maxRefusals });
  const running = new Map<string, Promise<T>>();
  let lookupCount = 0;

  const find = (key: string): CacheEntry<T> | undefined => values.get(key) ?? refusals.get(key);

  function keep(key: string, entry: CacheEntry<T>): void {
    const before = values.peek(key) ?? refusals.peek(key);
    if (before !== undefined && before.lookup > entry.lookup) return; // a later lookup was faster
    values.delete(key);
    refusals.delete(key);
    if (entry.isRefusal) refusals.set(key, entry);
    else values.set(key, entry, ownerOf(entry.value), sizeOf(entry.value));
  }

  async function runLookup(key: string, lookUp: LookUp<T>, mustBeNew: boolean): Promise<T> {
    lookupCount += 1;
    const lookup = lookupCount;
    const known = values.peek(key);
    try {
      const result = await lookUp(
        known !== undefined && known.usableUntil > now() ? known.value : undefined,
      );
      onLookup(result.isUnasked ? "unasked" : "asked");
      keep(key, createEntry(result, lookup, mustBeNew));
      return result.value;
    } catch (error) {
      return staleValue(key, error, mustBeNew);
    }
  }

  /** The value that is used although its lookup has failed. @throws the error where there is none */
  function staleValue(key: string, error: unknown, mustBeNew: boolean): T {
    const entry = find(key);
    const isUsable = entry !== undefined && entry.usableUntil > now() && !mustBeNew;
    const isUsed = isUsable && error instanceof Unavailable;
    onLookup(isUsed ? "stale" : "failed");
    if (!isUsed) throw error;
    entry.freshUntil = Math.min(now() + retryMs, entry.usableUntil);
    return entry.value;
  }

  function createEntry(
    { value, freshMs, usableMs = freshMs, isRefusal = false }: LookupResult<T>,
    lookup: number,
    mustBeNew: boolean,
  ): CacheEntry<T> {
    return {
      value,
      lookup,
      isRefusal,
      newUntil: mustBeNew ? now() + newMs : 0,
      freshUntil: now() + freshMs,
      usableUntil: now() + usableMs,
    };
  }

  /** Runs a lookup, or waits for the one that is running. */
  function shareLookup(key: string, lookUp: LookUp<T>, mustBeNew: boolean): Promise<T> {
    // A lookup that began before the value turned out to be wrong may find the wrong one again.
    const lookupKey = mustBeNew ? `new ${key}` : `any ${key}`;
    const shared = running.get(lookupKey);
    if (shared !== undefined) {
      onLookup("cached");
      return shared;
    }
    const started = runLookup(key, lookUp, mustBeNew).finally(() => running.delete(lookupKey));
    running.set(lookupKey, started);
    return started;
  }

  return {
    async get(key, lookUp, mustBeNew = false) {
      const entry = find(key);
      if (entry !== undefined && (mustBeNew ? entry.newUntil : entry.freshUntil) > now()) {
        onLookup("cached");
        return entry.value;
      }
      const found = shareLookup(key, lookUp, mustBeNew);
      if (mustBeNew || entry === undefined || entry.usableUntil <= now()) return found;
      return waitFor(found, entry.value);
    },
    peek(key) {
      const entry = find(key);
      return entry !== undefined && entry.freshUntil > now() ? entry.value : undefined;
    },
  };
}
