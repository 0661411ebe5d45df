import { setTimeout as sleep } from "node:timers/promises";
import { property } from "../connector/document.ts";
import { Unavailable } from "../connector/platform.ts";
import type { Log } from "../log.ts";
import type { ApiClient } from "./api-client.ts";
import { errorOfStatus, hasStatus } from "./api-error.ts";
import { createBackoff } from "./backoff.ts";
import { listAll, withoutManagedFields } from "./list-all.ts";
import { type Change, createObjectStore, type KubeObject } from "./object-store.ts";

/** A copy of all objects of one kind that is kept current, and kept when the API server is away. */
export interface WatchedCache<T extends KubeObject> {
  get(name: string, namespace?: string): T | undefined;
  list(namespace?: string): readonly T[];
  /** Calls for each object that comes, changes or goes, until the function that it returns is called. */
  onChange(listener: (change: Change<T>) => void): () => void;
  /** Whether the first list has arrived; it stays true from then on. */
  readonly ready: boolean;
  /** Settles when the first list has arrived. It never fails. */
  readonly synced: Promise<void>;
  /** Why the copy is not current, in a sentence; undefined while it is. */
  readonly trouble: string | undefined;
}

export interface WatchedCacheOptions {
  readonly client: ApiClient;
  /** The collection: `/apis/connectors.alauda.io/v1alpha1/connectors`. */
  readonly path: string;
  /** `labelSelector`, `fieldSelector`. */
  readonly query?: Readonly<Record<string, string>>;
  readonly log: Log;
  /** Ends it. */
  readonly signal: AbortSignal;
  /** In [0, 1). */
  readonly random: () => number;
  readonly timing?: Partial<CacheTiming>;
}

/** All in milliseconds. */
export interface CacheTiming {
  readonly firstRetry: number;
  readonly longestRetry: number;
  /**
   * How long the API server is asked to keep a watch open, at least; up to twice as long. A peer that
   * is gone is noticed within half a minute, but what stands between may keep a connection alive with
   * nobody behind it. There is no sign of life to wait for: a cluster in which nothing happens sends
   * no bookmarks, either (seen with Kubernetes 1.35).
   */
  readonly watch: number;
  /** How long after that a watch that was silent all the time is given up. */
  readonly grace: number;
  /** A watch that lasted so long has worked: the next retry is the first again. */
  readonly worked: number;
}

const defaultTiming: CacheTiming = {
  firstRetry: 500,
  longestRetry: 30_000,
  watch: 150_000,
  grace: 15_000,
  worked: 5_000,
};

/**
 * Lists and watches until the signal aborts, whatever goes wrong. A watch that the API server ends as
 * agreed goes on where it was; after anything else everything is listed again, with a back-off, since
 * the API server may have come back with another past (a restored etcd).
 */
export function watchCache<T extends KubeObject>(options: WatchedCacheOptions): WatchedCache<T> {
  const { client, path, query = {}, log, signal, random } = options;
  const timing = { ...defaultTiming, ...options.timing };
  const backoff = createBackoff({
    firstMs: timing.firstRetry,
    longestMs: timing.longestRetry,
    random,
  });
  const listeners = new Set<(change: Change<T>) => void>();
  const store = createObjectStore<T>((change) => {
    for (const listener of listeners) listener(change);
  });
  const synced = Promise.withResolvers<void>();
  let ready = false;
  let trouble: string | undefined = `${path} has not been listed yet`;

  async function list(): Promise<string> {
    const { items, resourceVersion } = await listAll<T>(client, path, query);
    store.replace(items);
    ready = true;
    synced.resolve();
    return resourceVersion;
  }

  /** Takes up changes until the API server ends the watch. */
  async function follow(from: string): Promise<string> {
    const lengthMs = timing.watch * (1 + random());
    const events = await client.watch({
      path,
      query: {
        ...query,
        resourceVersion: from,
        allowWatchBookmarks: "true",
        timeoutSeconds: `${Math.ceil(lengthMs / 1000)}`,
      },
      signal,
      silenceMs: lengthMs + timing.grace,
    });
    worksNow();
    let version = from;
    for await (const event of events) {
      const { type, object } = readEvent<T>(event);
      version = object.metadata.resourceVersion;
      if (type === "DELETED") store.delete(object);
      else if (type !== "BOOKMARK") store.set(withoutManagedFields(object));
    }
    return version;
  }

  function worksNow(): void {
    if (trouble !== undefined) log("info", "watch established", { reference: path });
    trouble = undefined;
  }

  function remember(error: unknown): void {
    if (hasStatus(error, 410)) return; // the past was compacted, as it is from time to time
    const sentence = error instanceof Error ? error.message : String(error);
    if (sentence !== trouble) log("warning", "watch failed, retrying", { reference: path, error });
    trouble = sentence;
  }

  /** Once around. @returns the version that the next watch goes on from, if it can */
  async function listAndFollow(from: string | undefined): Promise<string | undefined> {
    let started = Number.POSITIVE_INFINITY;
    let version: string | undefined;
    try {
      version = from ?? (await list());
      started = performance.now();
      version = await follow(version);
    } catch (error) {
      if (!signal.aborted) remember(error);
      version = undefined;
    }
    if (performance.now() - started >= timing.worked) backoff.reset();
    else await sleep(backoff.next(), undefined, { signal }).catch(() => {});
    return version;
  }

  async function run(): Promise<void> {
    let version: string | undefined;
    while (!signal.aborted) version = await listAndFollow(version);
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
    get trouble() {
      return trouble;
    },
  };
}

interface WatchEvent<T> {
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK";
  readonly object: T;
}

/** @throws what an event of type ERROR says: 410 where the version is too old */
function readEvent<T extends KubeObject>(event: unknown): WatchEvent<T> {
  const type = property(event, "type");
  const object = property(event, "object");
  if (type === "ERROR") throw errorOfStatus(Number(property(object, "code")), object);
  const version = property(property(object, "metadata"), "resourceVersion");
  if (typeof version !== "string")
    throw new Unavailable("the API server's watch sent something that is not an event");
  return event as WatchEvent<T>;
}
