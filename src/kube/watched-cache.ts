import { setTimeout as sleep } from "node:timers/promises";
import { property } from "../connector/document.ts";
import { Unavailable } from "../connector/platform.ts";
import type { Log } from "../log.ts";
import type { ApiClient } from "./api-client.ts";
import { hasStatus, statusError } from "./api-error.ts";
import { createBackoff } from "./backoff.ts";
import { listAll } from "./list-all.ts";
import {
  createObjectBudget,
  createOversizedObject,
  type ObjectBounds,
  operatorBounds,
  withoutManagedFields,
} from "./object-bounds.ts";
import { createObjectStore, type KubeObject, type ObjectChange } from "./object-store.ts";

/**
 * A copy of all objects of a collection that a watch keeps current: an informer, as client-go calls it. It is kept
 * while the API server is away.
 */
export interface WatchedCache<T extends KubeObject> {
  get(name: string, namespace?: string): T | undefined;
  /** The objects of a namespace, or of all namespaces. */
  list(namespace?: string): readonly T[];
  /**
   * Calls a listener for each object that is created, changed or deleted, until the function that it returns is called.
   */
  onChange(listener: (change: ObjectChange<T>) => void): () => void;
  /** Whether the first list has arrived; it stays true from then on. */
  readonly ready: boolean;
  /** Settles when the first list has arrived. It never rejects. */
  readonly synced: Promise<void>;
  /** Why the copy may not be current, in a sentence; undefined while it is. */
  readonly staleReason: string | undefined;
}

/** What to watch, and how. */
export interface WatchedCacheOptions<T extends KubeObject> {
  readonly client: ApiClient;
  /** Path of the collection: `/apis/connectors.alauda.io/v1alpha1/connectors`. */
  readonly path: string;
  /** `labelSelector`, `fieldSelector`. */
  readonly query?: Readonly<Record<string, string>>;
  /** How large objects may be; {@link operatorBounds} unless given. */
  readonly bounds?: ObjectBounds;
  /** What is kept of each object; all but its managedFields unless given. */
  readonly keep?: (object: T) => T;
  readonly log: Log;
  /** Ends the watch. */
  readonly signal: AbortSignal;
  /** A random number in [0, 1), for jitter. */
  readonly random: () => number;
  readonly timing?: Partial<CacheTiming>;
}

/** Times of a watch, in milliseconds. */
export interface CacheTiming {
  /** The first delay after something went wrong; it doubles with each failure. */
  readonly initialRetryMs: number;
  /** The longest delay. */
  readonly maxRetryMs: number;
  /**
   * How long the API server is asked to keep a watch open: a random time between this and twice as much. A peer that is
   * gone is noticed within half a minute, but a load balancer may keep a connection alive with nobody behind it. There
   * is no heartbeat to wait for: a cluster in which nothing happens sends no bookmarks either (seen with Kubernetes
   * 1.35).
   */
  readonly watchMs: number;
  /** So long after that, a watch that was silent all the time is given up. */
  readonly graceMs: number;
  /** A watch that lasted so long has worked: the next failure starts again from the initial delay. */
  readonly stableMs: number;
  /** Everything is listed again no more often than this for objects for which there is room again. */
  readonly relistMs: number;
}

const defaultTiming: CacheTiming = {
  initialRetryMs: 500,
  maxRetryMs: 30_000,
  watchMs: 150_000,
  graceMs: 15_000,
  stableMs: 5_000,
  relistMs: 60_000,
};

/**
 * Creates a cache and lists and watches its collection until the signal aborts, whatever goes wrong. A watch that the
 * API server ends after the time that was asked for goes on where it was. After anything else everything is listed
 * again, with a backoff, since the API server may have come back with another history (a restored etcd).
 */
export function createWatchedCache<T extends KubeObject>(
  options: WatchedCacheOptions<T>,
): WatchedCache<T> {
  const { client, path, query = {}, log, signal, random } = options;
  const { bounds = operatorBounds, keep = withoutManagedFields } = options;
  const timing = { ...defaultTiming, ...options.timing };
  const backoff = createBackoff({
    initialMs: timing.initialRetryMs,
    maxMs: timing.maxRetryMs,
    random,
  });
  const listeners = new Set<(change: ObjectChange<T>) => void>();
  const store = createObjectStore<T>((change) => {
    for (const listener of listeners) listener(change);
  });
  const synced = Promise.withResolvers<void>();
  let budget = createObjectBudget(bounds, keep);
  let listedAt = 0;
  let ready = false;
  let staleReason: string | undefined = `${path} has not been listed yet`;

  async function list(): Promise<string> {
    const listed = createObjectBudget(bounds, keep);
    const { items, resourceVersion } = await listAll<T>(client, path, {
      query,
      take: listed.take,
    });
    budget = listed;
    listedAt = performance.now();
    store.replace(items);
    ready = true;
    synced.resolve();
    return resourceVersion;
  }

  function apply(type: string, object: T): void {
    if (type === "BOOKMARK") return;
    if (type === "DELETED") budget.release(object);
    const kept = type === "DELETED" ? undefined : budget.take(object);
    if (kept === undefined) store.delete(object);
    else store.set(kept);
  }

  /**
   * Takes up changes until the API server ends the watch.
   * @returns the version that the next watch goes on from; undefined where everything has to be listed again
   */
  async function watch(from: string): Promise<string | undefined> {
    const durationMs = timing.watchMs * (1 + random());
    const events = await client.watch({
      path,
      query: {
        ...query,
        resourceVersion: from,
        allowWatchBookmarks: "true",
        timeoutSeconds: `${Math.ceil(durationMs / 1000)}`,
      },
      signal,
      idleTimeoutMs: durationMs + timing.graceMs,
    });
    reportCurrent();
    let version = from;
    for await (const event of events) {
      const { type, object } = readEvent<T>(event, bounds);
      version = object.metadata.resourceVersion;
      apply(type, object);
      const isRelistDue = performance.now() - listedAt > timing.relistMs;
      if (budget.mayHaveRoom && isRelistDue) return undefined;
    }
    return version;
  }

  function reportCurrent(): void {
    if (staleReason !== undefined) log("info", "watch established", { reference: path });
    staleReason = undefined;
  }

  function reportFailure(error: unknown): void {
    if (hasStatus(error, 410)) return; // the history was compacted, as happens from time to time
    const reason = error instanceof Error ? error.message : String(error);
    if (reason !== staleReason)
      log("warning", "watch failed, retrying", { reference: path, error });
    staleReason = reason;
  }

  /**
   * Lists where there is no version to go on from, then watches.
   * @returns the version that the next watch goes on from; undefined where everything has to be listed again
   */
  async function listAndWatch(from: string | undefined): Promise<string | undefined> {
    let started = Number.POSITIVE_INFINITY;
    let version: string | undefined;
    try {
      version = from ?? (await list());
      started = performance.now();
      version = await watch(version);
    } catch (error) {
      if (!signal.aborted) reportFailure(error);
      version = undefined;
    }
    if (performance.now() - started >= timing.stableMs) backoff.reset();
    else await sleep(backoff.nextDelayMs(), undefined, { signal }).catch(() => {});
    return version;
  }

  async function run(): Promise<void> {
    let version: string | undefined;
    while (!signal.aborted) version = await listAndWatch(version);
  }

  void run();
  return {
    get: store.get,
    list: store.list,
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    get ready() {
      return ready;
    },
    synced: synced.promise,
    get staleReason() {
      return staleReason;
    },
  };
}

interface WatchEvent<T> {
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK";
  readonly object: T;
}

/**
 * Checks an event of a watch. Of an object that was too large to be read it has the metadata.
 * @throws what an event of type ERROR says: ApiError 410 where the version is too old
 */
function readEvent<T extends KubeObject>(event: unknown, bounds: ObjectBounds): WatchEvent<T> {
  const type = property(event, "type");
  const object = property(event, "object");
  if (type === "ERROR") throw statusError(Number(property(object, "code")), object);
  const version = property(property(object, "metadata"), "resourceVersion");
  if (typeof version !== "string")
    throw new Unavailable("the API server's watch sent something that is not an event");
  const { bytes, ...skimmed } = event as WatchEvent<T> & { readonly bytes?: number };
  if (bytes === undefined) return skimmed;
  return { ...skimmed, object: createOversizedObject(skimmed.object, bytes, bounds) as never };
}
