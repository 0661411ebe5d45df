import { createHash } from "node:crypto";
import { LRUCache } from "lru-cache";
import { connectorApiVersion, connectorKind } from "../connector/connector.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { hasStatus } from "../kube/api-error.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { Log } from "../log.ts";
import type { Condition } from "./conditions.ts";
import { fieldManager } from "./ensure-object.ts";

export interface EventRecorderOptions {
  readonly client: Pick<ApiClient, "request">;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Which replica this is: the name of its Pod. */
  readonly instance: string;
  readonly log: Log;
}

/** Tells of something at a Connector. It never fails: what can't be told is logged. */
export type RecordEvent = (object: KubeObject, happening: Happening) => Promise<void>;

const reportingController = `connectors.alauda.io/${fieldManager}`;
/** Of a Connector at once, and then one more in each interval. */
const burst = 10;
const intervalMs = 60_000;
/** The API's limit, in bytes. */
const longestNote = 1024;
/** Of how many events the count is known, and of how many Connectors how often they were reported. */
const maxKept = 10_000;

/** Events of events.k8s.io/v1: one that repeats becomes a series. */
export function eventRecorder({ client, now, instance, log }: EventRecorderOptions): RecordEvent {
  const counts = new LRUCache<string, number>({ max: maxKept });
  const mayTell = rateLimit(now);

  async function record(object: KubeObject, happening: Happening): Promise<void> {
    const time = new Date(now()).toISOString().replace("Z", "000Z"); // metav1.MicroTime
    const reporting = { reportingController, reportingInstance: instance, eventTime: time };
    const event = { ...eventFor(object, happening), ...reporting };
    const { name, namespace } = event.metadata;
    const collection = `/apis/events.k8s.io/v1/namespaces/${namespace}/events`;
    const create = async (): Promise<void> => {
      await client.request({ method: "POST", path: collection, body: event });
      counts.set(name, 1);
    };
    const repeat = async (count: number): Promise<void> => {
      const contentType = "application/merge-patch+json";
      const body = { series: { count, lastObservedTime: time } };
      await client.request({ method: "PATCH", path: `${collection}/${name}`, contentType, body });
      counts.set(name, count);
    };
    const known = counts.get(name);
    try {
      await (known === undefined ? create() : repeat(known + 1));
    } catch (error) {
      // Another replica has told of it, or ours has expired (after an hour, unless told otherwise).
      if (!hasStatus(error, 404, 409)) throw error;
      await (known === undefined ? repeat(2) : create());
    }
  }

  return async (object, happening) => {
    const { name, namespace, uid } = object.metadata;
    if (!mayTell(uid)) return;
    await record(object, happening).catch((error: unknown) =>
      log("warning", "an event can't be written", { connector: `${namespace}/${name}`, error }),
    );
  };
}

/** The same happening has the same name, so that it is one event. */
function eventFor(
  { metadata }: KubeObject,
  { type, reason, note: text }: Happening,
): { readonly metadata: { readonly name: string; readonly namespace: string } } {
  const { name, namespace = "", uid, resourceVersion } = metadata;
  const note = shorten(text);
  const kind = { apiVersion: connectorApiVersion, kind: connectorKind };
  const regarding = { ...kind, name, namespace, uid, resourceVersion };
  const event = { type, reason, note, action: "Reconcile", regarding };
  const eventName = `${name}.${hashOf(uid, type, reason, note)}`;
  return {
    ...{ apiVersion: "events.k8s.io/v1", kind: "Event" },
    metadata: { name: eventName, namespace },
    ...event,
  };
}

/** A bucket of so many for each key, filled up over time. */
function rateLimit(now: () => number): (key: string) => boolean {
  const buckets = new LRUCache<string, { left: number; at: number }>({ max: maxKept });
  return (key) => {
    const bucket = buckets.get(key) ?? { left: burst, at: now() };
    buckets.set(key, bucket);
    bucket.left = Math.min(burst, bucket.left + (now() - bucket.at) / intervalMs);
    bucket.at = now();
    if (bucket.left < 1) return false;
    bucket.left -= 1;
    return true;
  };
}

const hashOf = (...texts: readonly string[]): string =>
  createHash("sha256").update(JSON.stringify(texts)).digest("hex").slice(0, 16);

function shorten(note: string): string {
  const bytes = Buffer.from(note);
  if (bytes.length <= longestNote) return note;
  // What a cut character leaves becomes a sign of three bytes.
  return `${bytes.subarray(0, longestNote - 6).toString("utf8")}…`;
}

/** What people are told of in an Event. */
export interface Happening {
  readonly type: "Normal" | "Warning";
  readonly reason: string;
  readonly note: string;
}

/**
 * What a change of conditions is worth telling: each one that has become False, or that is False for
 * another reason, and that the connector has become ready. What it is not ready for is told already.
 */
export function happeningsOf(
  before: readonly Condition[],
  after: readonly Condition[],
): readonly Happening[] {
  return after.flatMap(({ type, status, reason, message }): readonly Happening[] => {
    const last = before.find((condition) => condition.type === type);
    if (last?.status === status && last.reason === reason) return [];
    if (type === "Ready")
      return status === "True" ? [{ type: "Normal", reason, note: message }] : [];
    return status === "False" ? [{ type: "Warning", reason, note: `${type}: ${message}` }] : [];
  });
}
