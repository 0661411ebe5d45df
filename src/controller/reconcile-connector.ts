import { type Connector, otherStatusManager } from "../connector/connector.ts";
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
  isWaiting,
  readConditions,
  waitingFor,
} from "./conditions.ts";
import { generationOf, isObserved, writeStatus } from "./connector-status.ts";
import type { EnsurePrerequisites, Prerequisites, RegistryLogin } from "./ensure-prerequisites.ts";
import { conditionEvents, type RecordEvent } from "./event-recorder.ts";
import {
  type IdentityLogins,
  type LoginRecord,
  loginState,
  readLoginRecord,
} from "./identity-login.ts";
import {
  type AuthRefusal,
  knownOutcome,
  lastRefusal,
  type ProbeOutcome,
  type ProbeStatus,
  probeRegistry,
} from "./probe-registry.ts";
import {
  isDue,
  type ReconcileState,
  type ReconcileTiming,
  scheduleNext,
  untilNextLook,
} from "./reconcile-schedule.ts";

/** What is needed to reconcile Connectors. */
export interface ReconcileOptions {
  readonly client: Pick<ApiClient, "request">;
  readonly connectors: Pick<WatchedCache<KubeObject>, "get">;
  readonly ensurePrerequisites: EnsurePrerequisites;
  readonly probe: Probe;
  readonly identityLogins: IdentityLogins;
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
  /** Has {@link ConnectorReconciler.probe} called for a Connector some time, and a reconciliation afterwards. */
  readonly requestProbe: (ref: ConnectorRef) => void;
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

/**
 * Reconciles Connectors, and probes their registries. A registry may take its time, so no reconciliation waits for a probe:
 * it requests one, and takes its outcome when it runs again.
 */
export interface ConnectorReconciler {
  readonly reconcile: ReconcileConnector;
  /**
   * Probes the registry of a Connector for which that was requested.
   * @throws the signal's reason where it is aborted
   */
  probe(ref: ConnectorRef): Promise<void>;
  /** Whether the registry of a Connector was never probed by this replica. */
  isUnprobed(ref: ConnectorRef): boolean;
}

/** A probe that was requested. */
interface RequestedProbe {
  /** The version of the Connector and of its Secrets that it is about. */
  readonly version: string;
  readonly login: RegistryLogin;
  /** The Connector as it was read, and as it is since its status was written. */
  readonly read: KubeObject;
  readonly written: KubeObject;
}

/** What a probe has found, until a reconciliation takes it. */
interface FinishedProbe extends RequestedProbe {
  readonly outcome: ProbeOutcome;
}

/** What is written into a status beside its conditions. */
interface PublishOptions {
  readonly refusal: AuthRefusal | undefined;
  readonly login: LoginRecord | undefined;
  /** Whether a probe is pending. */
  readonly isPending?: boolean;
}

/** The result where there is no Connector, or one that is left to another controller. */
const gone: ReconcileResult = { outcome: "gone", requeueAfterMs: undefined, conditions: undefined };

/**
 * Creates the function that reconciles Connectors. It remembers what it has found of each, until the Connector is gone.
 */
export function createConnectorReconciler(options: ReconcileOptions): ConnectorReconciler {
  const { client, connectors, ensurePrerequisites, now, random, timing } = options;
  const reconcileStates = new Map<string, ReconcileState>();
  const requestedProbes = new Map<string, RequestedProbe>();
  /** The versions that are being probed. */
  const runningProbes = new Map<string, string>();
  const finishedProbes = new Map<string, FinishedProbe>();

  /**
   * Writes the status, and an Event for each change of a condition.
   * @returns the Connector, undefined where it is gone
   */
  async function publish(
    object: KubeObject,
    states: ConditionStates,
    { refusal, login, isPending = false }: PublishOptions,
  ): Promise<KubeObject | undefined> {
    const { name, namespace = "" } = object.metadata;
    const ref = { namespace, name };
    const generation = generationOf(object);
    const before = readConditions(object);
    const conditions = createConditions(states, {
      generation,
      before,
      now: now(),
      isPending,
    });
    const url = proxyUrl(ref, options.proxyHostsOf(ref));
    const status = { observedGeneration: generation, url, conditions, refusal, login };
    const written = await writeStatus(client, object, status);
    if (written === undefined) return undefined;
    for (const event of conditionEvents(before, conditions)) {
      await options.recordEvent(object, event);
    }
    return written;
  }

  async function probe(ref: ConnectorRef): Promise<void> {
    const key = showRef(ref);
    const requested = requestedProbes.get(key);
    const cached = connectors.get(ref.name, ref.namespace);
    if (requested === undefined || cached === undefined) return;
    requestedProbes.delete(key);
    const { login } = requested;
    const object = latest(cached, requested);
    const refusal = reconcileStates.get(key)?.outcome?.refusal;
    const { connector, secrets } = login;
    const subject = { connector, secrets, loginVersion: login.version, object, refusal };
    let outcome: ProbeOutcome;
    runningProbes.set(key, requested.version);
    try {
      outcome = await probeRegistry({ ...subject, known: undefined }, options);
    } catch (error) {
      if (options.signal.aborted) throw error;
      options.log("error", "a probe has failed", { connector: key, error });
      outcome = { liveness: probeFailed, auth: probeFailed, refusal };
    } finally {
      runningProbes.delete(key);
    }
    finishedProbes.set(key, { ...requested, outcome });
  }

  /** The outcome of a probe that has just finished, or of the last one where that is still good. */
  function outcomeOf(
    object: KubeObject,
    { version, login }: Prerequisites,
    key: string,
  ): ProbeOutcome | undefined {
    const finished = finishedProbes.get(key);
    finishedProbes.delete(key);
    if (login === undefined) return undefined;
    if (finished?.version === version) return finished.outcome;
    const last = reconcileStates.get(key);
    return knownOutcome({
      loginVersion: login.version,
      object,
      known: isDue(last, version, now()) ? undefined : last?.outcome,
      refusal: last?.outcome?.refusal,
    });
  }

  /** Requests a probe, and writes until then what is known without it. */
  async function awaitProbe(
    object: KubeObject,
    { version, states, login }: Prerequisites & { readonly login: RegistryLogin },
    ref: ConnectorRef,
  ): Promise<ReconcileResult> {
    const key = showRef(ref);
    const last = reconcileStates.get(key)?.outcome?.refusal;
    const refusal = lastRefusal(object, last, login.version);
    const record = readLoginRecord(object, login.version);
    const known = { ...states, ...lastProbeStates(object, states) };
    const written = await publish(object, known, { refusal, login: record, isPending: true });
    if (written === undefined) return gone;
    if (runningProbes.get(key) !== version) {
      requestedProbes.set(key, { version, login, read: object, written });
      options.requestProbe(ref);
    }
    return resultOf(written, undefined);
  }

  async function reconcile(ref: ConnectorRef, cached: KubeObject): Promise<ReconcileResult> {
    const key = showRef(ref);
    const object = latest(cached, finishedProbes.get(key) ?? requestedProbes.get(key));
    const prerequisites = await ensurePrerequisites(object);
    if (prerequisites === undefined || isLeftToOther(object, prerequisites)) return gone;
    const { login } = prerequisites;
    const outcome = outcomeOf(object, prerequisites, key);
    if (login !== undefined && outcome === undefined) {
      return awaitProbe(object, { ...prerequisites, login }, ref);
    }
    const states = { ...prerequisites.states, ...outcomeStates(outcome) };
    const observation = { version: prerequisites.version, states, outcome };
    const last = reconcileStates.get(key);
    const next = scheduleNext(last, observation, timing, { now: now(), random });
    reconcileStates.set(key, next); // first, so that a failure below does not make us probe the registry again
    const written = await publish(object, states, {
      refusal: outcome?.refusal,
      login: recordOf(outcome),
    });
    if (written === undefined) return gone;
    const isLookedAt = login !== undefined && mayChangeUnseen(login.connector);
    const untilDueMs = Math.max(0, next.dueAt - now());
    const looking = { now: now(), random, connectors: reconcileStates.size };
    return resultOf(written, isLookedAt ? untilNextLook(next, timing, looking) : untilDueMs);
  }

  return {
    async reconcile(ref) {
      const key = showRef(ref);
      const object = connectors.get(ref.name, ref.namespace);
      const exists = object !== undefined && !isBeingDeleted(object);
      const result = exists ? await reconcile(ref, object) : gone;
      if (result === gone) {
        for (const known of [reconcileStates, requestedProbes, finishedProbes]) known.delete(key);
      }
      return result;
    },
    probe,
    isUnprobed: (ref) => reconcileStates.get(showRef(ref))?.outcome === undefined,
  };
}

/** Whether a connector's login depends on what nobody watches: Secrets, and the right to a ServiceAccount. */
const mayChangeUnseen = ({
  secretName,
  caCertSecretName,
  clientCertSecretName,
  identity,
}: Connector): boolean =>
  [secretName, caCertSecretName, clientCertSecretName, identity].some((one) => one !== undefined);

/** Whether a Connector is of another class, and another controller writes its status: then it is not for us to do. */
const isLeftToOther = (object: KubeObject, { states }: Prerequisites): boolean =>
  states.ConnectorClassReady.reason === "ConnectorClassNotFound" &&
  otherStatusManager(object) !== undefined;
/** A probe may be faster than the watch, which has not shown then what was written when the probe was requested. */
const latest = (cached: KubeObject, requested: RequestedProbe | undefined): KubeObject =>
  requested !== undefined &&
  requested.read.metadata.resourceVersion === cached.metadata.resourceVersion
    ? requested.written
    : cached;

function resultOf(written: KubeObject, requeueAfterMs: number | undefined): ReconcileResult {
  const conditions = new Map(readConditions(written).map(({ type, status }) => [type, status]));
  const isReady = conditions.get("Ready") === "True";
  return { outcome: isReady ? "ready" : "not-ready", requeueAfterMs, conditions };
}

/**
 * What the status says of the registry, where that is about the spec as it is now: it stays until the next probe has an
 * outcome, so that no condition flickers.
 */
function lastProbeStates(
  object: KubeObject,
  { SecretReady: found }: ConditionStates,
): Partial<Pick<ConditionStates, "SecretReady" | "LivenessReady" | "AuthReady">> {
  const conditions = isObserved(object) ? readConditions(object) : [];
  const [secret, liveness, auth] = ["SecretReady", "LivenessReady", "AuthReady"].map((type) =>
    conditions.find((condition) => condition.type === type),
  );
  if (liveness === undefined || auth === undefined || isWaiting(liveness)) return {};
  const isPending = found.status === "Unknown" && secret !== undefined;
  return {
    ...(isPending ? { SecretReady: stateOf(secret) } : {}),
    LivenessReady: stateOf(liveness),
    AuthReady: stateOf(auth),
  };
}

const stateOf = ({ status, reason, message }: ConditionState): ConditionState => ({
  status,
  reason,
  message,
});

const isBeingDeleted = ({ metadata }: KubeObject): boolean =>
  property(metadata, "deletionTimestamp") !== undefined;

const probeFailed: ProbeStatus = {
  ok: false,
  reason: "ProbeFailed",
  message: "the probe failed because of an internal error; see the controller's log",
};

function outcomeStates(
  outcome: ProbeOutcome | undefined,
): Partial<Pick<ConditionStates, "SecretReady" | "LivenessReady" | "AuthReady">> {
  if (outcome === undefined) return {};
  const { liveness, auth, login } = outcome;
  const LivenessReady = probeCondition(liveness);
  if (login !== undefined && "ok" in login) {
    const SecretReady = bad(login.reason, login.message);
    return { SecretReady, LivenessReady, AuthReady: waitingFor("SecretReady") };
  }
  const AuthReady = liveness.ok ? probeCondition(auth) : waitingFor("LivenessReady");
  return {
    ...(login === undefined ? {} : { SecretReady: loginState(login) }),
    LivenessReady,
    AuthReady,
  };
}

/** The login that an outcome is about; undefined where there is none. */
const recordOf = (outcome: ProbeOutcome | undefined): LoginRecord | undefined =>
  outcome?.login === undefined || "ok" in outcome.login ? undefined : outcome.login;

const probeCondition = ({ ok, reason, message }: ProbeStatus): ConditionState =>
  ok ? good(reason, message) : bad(reason, message);
