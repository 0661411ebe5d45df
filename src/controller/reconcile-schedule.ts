import type { ConditionStates } from "./conditions.ts";
import type { ProbeOutcome } from "./probe-outcome.ts";

/** What a replica remembers of a connector from one time to the next. */
export interface Remembered {
  /** Of what it was: the Connector's generation and its Secrets. */
  readonly version: string;
  readonly outcome: ProbeOutcome | undefined;
  /** How often in a row something was found that may mend itself. */
  readonly troubles: number;
  /** When to look again, and to ask the registry, in milliseconds since the epoch. */
  readonly dueAt: number;
}

/** All in milliseconds; what is waited is spread over the second half of it. */
export interface ReconcileTiming {
  /** How often everything is looked at, and each registry is asked. */
  readonly period: number;
  /** How soon after something was found that may mend itself; then twice as long each time. */
  readonly firstRetry: number;
  readonly longestRetry: number;
}

export const defaultTiming: ReconcileTiming = {
  period: 6 * 60_000,
  firstRetry: 2_000,
  longestRetry: 2 * 60_000,
};

/** What may mend itself, or be mended where we don't see it. All else shows as a change of the Connector. */
const passing: ReadonlySet<string> = new Set([
  ...["SecretNotFound", "SecretInvalid", "SecretForbidden", "ProxyAccessDenied"],
  ...["ServiceConflict", "ServiceRefused"],
  ...["ConnectionFailed", "CertificateInvalid", "ProbeFailed"],
]);

export const isDue = (remembered: Remembered | undefined, version: string, now: number): boolean =>
  remembered?.version !== version || now >= remembered.dueAt;

export interface Looked {
  readonly version: string;
  readonly findings: ConditionStates;
  readonly outcome: ProbeOutcome | undefined;
}

/** When to look again. Somebody who has looked before it was due changes nothing, unless trouble has come or gone. */
export function remember(
  before: Remembered | undefined,
  { version, findings, outcome }: Looked,
  timing: ReconcileTiming,
  { now, random }: { readonly now: number; readonly random: () => number },
): Remembered {
  const isTroubled = Object.values(findings).some(
    ({ status, reason }) => status !== "True" && passing.has(reason),
  );
  const last = before?.version === version ? before : undefined;
  const wasTroubled = last !== undefined && last.troubles > 0;
  if (last !== undefined && now < last.dueAt && isTroubled === wasTroubled) {
    return { ...last, outcome };
  }
  const troubles = isTroubled ? (last?.troubles ?? 0) + 1 : 0;
  const { period, firstRetry, longestRetry } = timing;
  const delay =
    troubles === 0 ? period : Math.min(firstRetry * 2 ** (troubles - 1), longestRetry, period);
  return { version, outcome, troubles, dueAt: now + delay * (0.5 + random() / 2) };
}
