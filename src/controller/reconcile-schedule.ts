import type { ConditionStates } from "./conditions.ts";
import type { ProbeOutcome } from "./probe-registry.ts";

/** What a replica remembers of a Connector from one reconciliation to the next. */
export interface ReconcileState {
  /** The version of the Connector and of its Secrets that this is about. */
  readonly version: string;
  /** What its registry was last found to be; undefined where it was not probed. */
  readonly outcome: ProbeOutcome | undefined;
  /** How many reconciliations in a row have found something transient. */
  readonly failures: number;
  /** When to reconcile again, and to probe the registry, in milliseconds since 1970. */
  readonly dueAt: number;
}

/**
 * The delays between reconciliations of a Connector, in milliseconds. Each is spread over the second half of its
 * length.
 */
export interface ReconcileTiming {
  /** How often a Connector is reconciled and its registry probed while nothing is transient. */
  readonly periodMs: number;
  /** The first delay after something transient was found; it doubles with each reconciliation that finds it again. */
  readonly initialRetryMs: number;
  /** The longest of these delays. */
  readonly maxRetryMs: number;
  /** How often a Connector is reconciled to see whether its Secrets have changed, which are not watched. */
  readonly lookMs: number;
}

export const defaultReconcileTiming: ReconcileTiming = {
  periodMs: 6 * 60_000,
  initialRetryMs: 2_000,
  maxRetryMs: 2 * 60_000,
  lookMs: 60_000,
};

/** With very many Connectors each is looked at less often, so that all of them together take no more than ten looks a second. */
const minLookMsPerConnector = 100;

/**
 * In how many milliseconds to reconcile again: when a probe is due, or earlier where a Secret, or the right to an identity, may have changed until then.
 * @param connectors how many there are
 */
export function untilNextLook(
  { dueAt }: ReconcileState,
  { lookMs }: ReconcileTiming,
  {
    now,
    random,
    connectors,
  }: { readonly now: number; readonly random: () => number; readonly connectors: number },
): number {
  const spreadMs = Math.max(lookMs, connectors * minLookMsPerConnector) * (0.5 + random() / 2);
  return Math.min(Math.max(0, dueAt - now), spreadMs);
}

/**
 * The reasons of conditions that may become True without a change that we watch: they pass by themselves, or somebody
 * mends what we don't see. Everything else that helps is a change of the Connector.
 */
const transientReasons: ReadonlySet<string> = new Set([
  "SecretNotFound",
  "SecretInvalid",
  "InvalidPEM",
  "SecretForbidden",
  "ProxyAccessDenied",
  "ServiceConflict",
  "ServiceRefused",
  "ConnectionFailed",
  "CertificateInvalid",
  "ProbeFailed",
  "TokenForbidden",
  "ServiceAccountNotFound",
  "ExchangeFailed",
]);

/** Whether a registry has to be probed again. @param now in milliseconds since 1970 */
export const isDue = (last: ReconcileState | undefined, version: string, now: number): boolean =>
  last?.version !== version || now >= last.dueAt;

/** What one reconciliation has observed. */
export interface Observation {
  readonly version: string;
  readonly states: ConditionStates;
  readonly outcome: ProbeOutcome | undefined;
}

/**
 * Plans the next reconciliation. One that came before it was due leaves the plan as it is, unless something transient
 * has appeared or gone.
 * @param now in milliseconds since 1970
 * @param random in [0, 1)
 */
export function scheduleNext(
  previous: ReconcileState | undefined,
  { version, states, outcome }: Observation,
  { periodMs, initialRetryMs, maxRetryMs }: ReconcileTiming,
  { now, random }: { readonly now: number; readonly random: () => number },
): ReconcileState {
  const isFailing = Object.values(states).some(
    ({ status, reason }) => status !== "True" && transientReasons.has(reason),
  );
  const last = previous?.version === version ? previous : undefined;
  const wasFailing = last !== undefined && last.failures > 0;
  if (last !== undefined && now < last.dueAt && isFailing === wasFailing) {
    return { ...last, outcome };
  }
  const failures = isFailing ? (last?.failures ?? 0) + 1 : 0;
  const retryMs = Math.min(initialRetryMs * 2 ** (failures - 1), maxRetryMs, periodMs);
  const delayMs = isFailing ? retryMs : periodMs;
  return { version, outcome, failures, dueAt: now + delayMs * (0.5 + random() / 2) };
}
