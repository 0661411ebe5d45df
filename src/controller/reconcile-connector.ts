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
  conditionsOf,
  good,
  readConditions,
  waitingFor,
} from "./conditions.ts";
import { generationOf, hasBeenSeen, writeStatus } from "./connector-status.ts";
import type { ExamineConnector, Examined } from "./ensure-prerequisites.ts";
import { happeningsOf, type RecordEvent } from "./event-recorder.ts";
import { type AuthRefusal, type ProbeOutcome, probeOutcome, type Told } from "./probe-outcome.ts";
import { isDue, type ReconcileTiming, type Remembered, remember } from "./reconcile-schedule.ts";
import type { Clock } from "./work-queue.ts";

export interface ReconcileOptions {
  readonly client: Pick<ApiClient, "request">;
  readonly connectors: Pick<WatchedCache<KubeObject>, "get">;
  readonly examine: ExamineConnector;
  readonly probe: Probe;
  readonly recordEvent: RecordEvent;
  readonly proxyHostsOf: ProxyHostsOf;
  readonly clock: Pick<Clock, "now">;
  /** In [0, 1). */
  readonly random: () => number;
  readonly timing: ReconcileTiming;
  readonly log: Log;
  /** Ends probes. */
  readonly signal: AbortSignal;
}

export interface ReconcileResult {
  readonly outcome: "ready" | "not-ready" | "gone";
  /** After how many milliseconds to look again; undefined for never. */
  readonly again: number | undefined;
  /** As they are now, type → status; undefined where there are none. */
  readonly conditions: ReadonlyMap<string, string> | undefined;
}

/**
 * Makes the cluster what it should be for a connector, and says in its status how that went.
 * @throws where it has to be tried again: the API server is away (Unavailable), or somebody else was
 * faster (ApiError 409)
 */
export type ReconcileConnector = (ref: ConnectorRef) => Promise<ReconcileResult>;

/** Undefined where it is too early to ask. */
type Asked = ProbeOutcome | undefined;

const gone: ReconcileResult = { outcome: "gone", again: undefined, conditions: undefined };

export function connectorReconciler(options: ReconcileOptions): ReconcileConnector {
  const { client, connectors, examine, clock, random, timing } = options;
  const memory = new Map<string, Remembered>();

  /** Writes what was found, and tells of what that changes. @returns the Connector, undefined where it is gone */
  async function publish(
    object: KubeObject,
    findings: ConditionStates,
    refusal?: AuthRefusal,
  ): Promise<KubeObject | undefined> {
    const { name, namespace = "" } = object.metadata;
    const ref = { namespace, name };
    const generation = generationOf(object);
    const before = readConditions(object);
    const conditions = conditionsOf(findings, { generation, before, now: clock.now() });
    const url = proxyUrl(ref, options.proxyHostsOf(ref));
    const status = { observedGeneration: generation, url, conditions, refusal };
    const written = await writeStatus(client, object, status);
    if (written === undefined) return undefined;
    for (const happening of happeningsOf(before, conditions)) {
      await options.recordEvent(object, happening);
    }
    return written;
  }

  /** Asks the registry, unless that was done not long ago. */
  async function ask(object: KubeObject, examined: Examined, key: string): Promise<Asked> {
    const { version, login } = examined;
    if (login === undefined) return undefined;
    const remembered = memory.get(key);
    const subject = {
      ...{
        connector: login.connector,
        secrets: login.secrets,
        loginVersion: login.version,
        object,
      },
      known: isDue(remembered, version, clock.now()) ? undefined : remembered?.outcome,
      refusal: remembered?.outcome?.refusal,
    };
    try {
      return await probeOutcome(subject, { ...options, now: clock.now });
    } catch (error) {
      if (options.signal.aborted) throw error;
      options.log("error", "a probe has failed", { connector: key, error });
      return { liveness: ourMistake, auth: ourMistake, refusal: subject.refusal };
    }
  }

  async function reconcile(key: string, object: KubeObject): Promise<ReconcileResult> {
    const examined = await examine(object);
    if (examined === undefined) return gone;
    const isNew = examined.login !== undefined && !hasBeenSeen(object);
    // To ask takes some seconds, and a new Connector shows at once that somebody looks after it.
    const current = isNew ? await publish(object, examined.findings) : object;
    if (current === undefined) return gone;
    const asked = await ask(current, examined, key);
    const findings = { ...examined.findings, ...outcomeFindings(asked) };
    const looked = { version: examined.version, findings, outcome: asked };
    const next = remember(memory.get(key), looked, timing, { now: clock.now(), random });
    memory.set(key, next); // first, so that the registry is not asked again where the next fails
    const written = await publish(current, findings, asked?.refusal);
    if (written === undefined) return gone;
    const again = Math.max(0, next.dueAt - clock.now());
    const conditions = new Map(readConditions(written).map(({ type, status }) => [type, status]));
    const outcome = conditions.get("Ready") === "True" ? "ready" : "not-ready";
    return { outcome, again, conditions };
  }

  return async (ref) => {
    const key = showRef(ref);
    const object = connectors.get(ref.name, ref.namespace);
    const isThere = object !== undefined && !isLeaving(object);
    const result = isThere ? await reconcile(key, object) : gone;
    if (result === gone) memory.delete(key);
    return result;
  };
}

const isLeaving = ({ metadata }: KubeObject): boolean =>
  property(metadata, "deletionTimestamp") !== undefined;

const ourMistake: Told = {
  ok: false,
  reason: "ProbeFailed",
  message: "the probe failed because of an internal error; see the controller's log",
};

function outcomeFindings(
  outcome: ProbeOutcome | undefined,
): Partial<Pick<ConditionStates, "LivenessReady" | "AuthReady">> {
  if (outcome === undefined) return {};
  const { liveness, auth } = outcome;
  const AuthReady = liveness.ok ? finding(auth) : waitingFor("LivenessReady");
  return { LivenessReady: finding(liveness), AuthReady };
}

const finding = ({ ok, reason, message }: Told): ConditionState =>
  ok ? good(reason, message) : bad(reason, message);
