import { otherStatusManager } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import { type ProxyHostsOf, proxyUrl } from "../connector/proxy-address.ts";
import type { ApiClient } from "../kube/api-client.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { WatchedCache } from "../kube/watched-cache.ts";
import type { Log } from "../log.ts";
import type { Probe } from "../upstream/probe.ts";
import {
  bad,
  type ConditionState,
  type ConditionStates,
  createConditions,
  good,
  readConditions,
  waitingFor,
} from "./conditions.ts";
import { generationOf, hasControllerStatus, writeStatus } from "./connector-status.ts";
import type { EnsurePrerequisites, Prerequisites } from "./ensure-prerequisites.ts";
import { conditionEvents, type RecordEvent } from "./event-recorder.ts";
import {
  type AuthRefusal,
  type ProbeOutcome,
  type ProbeStatus,
  probeRegistry,
} from "./probe-registry.ts";
import {
  isDue,
  type ReconcileState,
  type ReconcileTiming,
  scheduleNext,
} from "./reconcile-schedule.ts";

/** What is needed to reconcile Connectors. */
export interface ReconcileOptions {
  readonly client: Pick<ApiClient, "request">;
  readonly connectors: Pick<WatchedCache<KubeObject>, "get">;
  readonly ensurePrerequisites: EnsurePrerequisites;
  readonly probe: Probe;
  readonly recordEvent: RecordEvent;
  readonly proxyHostsOf: ProxyHostsOf;
  /** The time, in milliseconds since 1970. */
  readonly now: () => number;
  /** A random number in [0, 1), for jitter. */
  readonly random: () => number;
  readonly timing: ReconcileTiming;
  readonly log: Log;
  /** Ends probes. */
  readonly signal: AbortSignal;
}

/** What a reconciliation has come to. */
export interface ReconcileResult {
  readonly outcome: "ready" | "not-ready" | "gone";
  /** After how many milliseconds to reconcile again; undefined for never. */
  readonly requeueAfterMs: number | undefined;
  /** The conditions as they are now, type → status; undefined where the Connector is gone. */
  readonly conditions: ReadonlyMap<string, string> | undefined;
}

/**
 * Reconciles a Connector: makes the cluster what it should be for it, and writes the outcome into its status.
 * @throws Unavailable where the API server is away, and ApiError 409 where somebody else was faster: it has to be run
 * again
 */
export type ReconcileConnector = (ref: ConnectorRef) => Promise<ReconcileResult>;

/** The result where there is no Connector, or one that is left to another controller. */
const gone: ReconcileResult = { outcome: "gone", requeueAfterMs: undefined, conditions: undefined };

/**
 * Creates the function that reconciles Connectors. It remembers what it has found of each, until the Connector is gone.
 */
export function createConnectorReconciler(options: ReconcileOptions): ReconcileConnector {
  const { client, connectors, ensurePrerequisites, now, random, timing } = options;
  const reconcileStates = new Map<string, ReconcileState>();

  /**
   * Writes the status, and an Event for each change of a condition.
   * @returns the Connector, undefined where it is gone
   */
  async function publish(
    object: KubeObject,
    states: ConditionStates,
    refusal?: AuthRefusal,
  ): Promise<KubeObject | undefined> {
    const { name, namespace = "" } = object.metadata;
    const ref = { namespace, name };
    const generation = generationOf(object);
    const before = readConditions(object);
    const conditions = createConditions(states, { generation, before, now: now() });
    const url = proxyUrl(ref, options.proxyHostsOf(ref));
    const status = { observedGeneration: generation, url, conditions, refusal };
    const written = await writeStatus(client, object, status);
    if (written === undefined) return undefined;
    for (const event of conditionEvents(before, conditions)) {
      await options.recordEvent(object, event);
    }
    return written;
  }

  /** Probes the registry where that is due. @returns undefined where it is too early for that */
  async function probe(
    object: KubeObject,
    { version, login }: Prerequisites,
    key: string,
  ): Promise<ProbeOutcome | undefined> {
    if (login === undefined) return undefined;
    const last = reconcileStates.get(key);
    const subject = {
      connector: login.connector,
      secrets: login.secrets,
      loginVersion: login.version,
      object,
      known: isDue(last, version, now()) ? undefined : last?.outcome,
      refusal: last?.outcome?.refusal,
    };
    try {
      return await probeRegistry(subject, options);
    } catch (error) {
      if (options.signal.aborted) throw error;
      options.log("error", "a probe has failed", { connector: key, error });
      return { liveness: probeFailed, auth: probeFailed, refusal: subject.refusal };
    }
  }

  async function reconcile(key: string, object: KubeObject): Promise<ReconcileResult> {
    const prerequisites = await ensurePrerequisites(object);
    if (prerequisites === undefined || isLeftToOther(object, prerequisites)) return gone;
    const isNew = prerequisites.login !== undefined && !hasControllerStatus(object);
    // A probe takes some seconds, and a new Connector shows at once that somebody looks after it.
    const current = isNew ? await publish(object, prerequisites.states) : object;
    if (current === undefined) return gone;
    const outcome = await probe(current, prerequisites, key);
    const states = { ...prerequisites.states, ...outcomeStates(outcome) };
    const observation = { version: prerequisites.version, states, outcome };
    const last = reconcileStates.get(key);
    const next = scheduleNext(last, observation, timing, { now: now(), random });
    reconcileStates.set(key, next); // first, so that a failure below does not make us probe the registry again
    const written = await publish(current, states, outcome?.refusal);
    if (written === undefined) return gone;
    const requeueAfterMs = Math.max(0, next.dueAt - now());
    const conditions = new Map(readConditions(written).map(({ type, status }) => [type, status]));
    const isReady = conditions.get("Ready") === "True";
    return { outcome: isReady ? "ready" : "not-ready", requeueAfterMs, conditions };
  }

  return async (ref) => {
    const key = showRef(ref);
    const object = connectors.get(ref.name, ref.namespace);
    const exists = object !== undefined && !isBeingDeleted(object);
    const result = exists ? await reconcile(key, object) : gone;
    if (result === gone) reconcileStates.delete(key);
    return result;
  };
}

/** Whether a Connector is of another class, and another controller writes its status: then it is not for us to do. */
const isLeftToOther = (object: KubeObject, { states }: Prerequisites): boolean =>
  states.ConnectorClassReady.reason === "ConnectorClassNotFound" &&
  otherStatusManager(object) !== undefined;

const isBeingDeleted = ({ metadata }: KubeObject): boolean =>
  property(metadata, "deletionTimestamp") !== undefined;

const probeFailed: ProbeStatus = {
  ok: false,
  reason: "ProbeFailed",
  message: "the probe failed because of an internal error; see the controller's log",
};

function outcomeStates(
  outcome: ProbeOutcome | undefined,
): Partial<Pick<ConditionStates, "LivenessReady" | "AuthReady">> {
  if (outcome === undefined) return {};
  const { liveness, auth } = outcome;
  const AuthReady = liveness.ok ? probeCondition(auth) : waitingFor("LivenessReady");
  return { LivenessReady: probeCondition(liveness), AuthReady };
}

const probeCondition = ({ ok, reason, message }: ProbeStatus): ConditionState =>
  ok ? good(reason, message) : bad(reason, message);
