import { createHash } from "node:crypto";
import { LRUCache } from "lru-cache";
import { connectorApiVersion, connectorKind, fieldManager } from "../connector/connector.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { hasStatus } from "../kube/api-error.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { Log } from "../log.ts";
import type { Condition } from "./conditions.ts";

/** What is needed to write Events. */
export interface EventRecorderOptions {
  readonly client: Pick<ApiClient, "request">;
  /** The time, in milliseconds since 1970. */
  readonly now: () => number;
  /** The name of this replica's Pod. */
  readonly instance: string;
  readonly log: Log;
}

/** Writes an Event about a Connector. It never rejects: an Event that can't be written is logged. */
export type RecordEvent = (object: KubeObject, event: ConnectorEvent) => Promise<void>;

const reportingController = `connectors.alauda.io/${fieldManager}`;
/** So many Events of a Connector are written at once, and then one more in each interval. */
const burst = 10;
const intervalMs = 60_000;
/** The API's limit for a note. */
const maxNoteBytes = 1024;
/** Of how many events the count is known, and of how many Connectors how often they were reported. */
const maxEntries = 10_000;

/** Creates the function that writes Events (events.k8s.io/v1). An Event that repeats becomes a series. */
export function createEventRecorder({
  client,
  now,
  instance,
  log,
}: EventRecorderOptions): RecordEvent {
  const counts = new LRUCache<string, number>({ max: maxEntries });
  const isWithinLimit = createRateLimit(now);

  async function record(object: KubeObject, event: ConnectorEvent): Promise<void> {
    const time = new Date(now()).toISOString().replace("Z", "000Z"); // metav1.MicroTime
    const reporting = { reportingController, reportingInstance: instance, eventTime: time };
    const body = { ...eventObject(object, event), ...reporting };
    const { name, namespace } = body.metadata;
    const collection = `/apis/events.k8s.io/v1/namespaces/${namespace}/events`;
    const create = async (): Promise<void> => {
      await client.request({ method: "POST", path: collection, body });
      counts.set(name, 1);
    };
    const repeat = async (count: number): Promise<void> => {
      const contentType = "application/merge-patch+json";
      await client.request({
        method: "PATCH",
        path: `${collection}/${name}`,
        contentType,
        body: { series: { count, lastObservedTime: time } },
      });
      counts.set(name, count);
    };
    const known = counts.get(name);
    try {
      await (known === undefined ? create() : repeat(known + 1));
    } catch (error) {
      // Another replica has written it, or ours has expired (after an hour by default).
      if (!hasStatus(error, 404, 409)) throw error;
      await (known === undefined ? repeat(2) : create());
    }
  }

  return async (object, event) => {
    const { name, namespace, uid } = object.metadata;
    if (!isWithinLimit(uid)) return;
    await record(object, event).catch((error: unknown) =>
      log("warning", "an event can't be written", { connector: `${namespace}/${name}`, error }),
    );
  };
}

/** The Event as an object of the API. The same Event of the same Connector always has the same name. */
function eventObject({ metadata }: KubeObject, { type, reason, note: text }: ConnectorEvent) {
  const { name, namespace = "", uid, resourceVersion } = metadata;
  const note = shorten(text);
  const kind = { apiVersion: connectorApiVersion, kind: connectorKind };
  const regarding = { ...kind, name, namespace, uid, resourceVersion };
  const event = { type, reason, note, action: "Reconcile", regarding };
  const eventName = `${name}.${hashOf(uid, type, reason, note)}`;
  return {
    apiVersion: "events.k8s.io/v1",
    kind: "Event",
    metadata: { name: eventName, namespace },
    ...event,
  };
}

/** Creates a token bucket for each key. @returns whether one more fits into the bucket of a key */
function createRateLimit(now: () => number): (key: string) => boolean {
  const buckets = new LRUCache<string, { left: number; at: number }>({ max: maxEntries });
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
  if (bytes.length <= maxNoteBytes) return note;
  // A character that is cut in the middle becomes U+FFFD, which has three bytes.
  return `${bytes.subarray(0, maxNoteBytes - 6).toString("utf8")}…`;
}

/** What an Event of a Connector says to people. */
export interface ConnectorEvent {
  readonly type: "Normal" | "Warning";
  readonly reason: string;
  readonly note: string;
}

/**
 * The Events for a change of conditions: one for each condition that has become False, or that is False for another
 * reason, and one where the connector has become ready. That it is no longer ready follows from the others.
 */
export function conditionEvents(
  before: readonly Condition[],
  after: readonly Condition[],
): readonly ConnectorEvent[] {
  return after.flatMap(({ type, status, reason, message }): readonly ConnectorEvent[] => {
    const last = before.find((condition) => condition.type === type);
    if (last?.status === status && last.reason === reason) return [];
    if (type === "Ready")
      return status === "True" ? [{ type: "Normal", reason, note: message }] : [];
    return status === "False" ? [{ type: "Warning", reason, note: `${type}: ${message}` }] : [];
  });
}
