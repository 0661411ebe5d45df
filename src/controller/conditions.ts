/** The conditions in a Connector's status, which docs/connector.md explains to users. */

import { property } from "../connector/document.ts";

/** The types of all conditions but Ready, in the order in which they depend on each other and are shown. */
const partTypes = [
  "ConnectorClassReady",
  "SecretReady",
  "LivenessReady",
  "AuthReady",
  "ProxyServiceReady",
  "CACertReady",
] as const;

/** The type of a condition that Ready is made of. */
export type PartType = (typeof partTypes)[number];
export type ConditionType = PartType | "Ready";

/** What a condition says, without its type and its times. */
export interface ConditionState {
  readonly status: "True" | "False" | "Unknown";
  /** One word in CamelCase, for programs and for a column of `kubectl get`. */
  readonly reason: string;
  /** For people: what was wanted, what was found, what to do. Never a Secret's value. */
  readonly message: string;
}

/** Creates the state of a condition that is True. */
export const good = (reason: string, message: string): ConditionState => ({
  status: "True",
  reason,
  message,
});

/** Creates the state of a condition that is False. */
export const bad = (reason: string, message: string): ConditionState => ({
  status: "False",
  reason,
  message,
});

/** Creates the state of a condition of which nobody knows whether it is True. */
export const unknown = (reason: string, message: string): ConditionState => ({
  status: "Unknown",
  reason,
  message,
});

/** The states of all conditions but Ready, which follows from them. */
export type ConditionStates = Readonly<Record<PartType, ConditionState>>;

/** A condition in the form of the API: metav1.Condition. */
export interface Condition extends ConditionState {
  readonly type: ConditionType;
  readonly observedGeneration: number;
  readonly lastTransitionTime: string;
  /** When the conditions were last checked, to the hour; empty where another writer has left it out. */
  readonly lastProbeTime: string;
}

/** Creates the state of a condition that can't be checked before another one is True. @param type the other one */
export const waitingFor = (type: PartType): ConditionState => {
  const subject = type.replace(/Ready$/, "");
  return unknown(`WaitingFor${subject}`, `checked once ${type} is True`);
};

/** Whether the state of a condition is that of {@link waitingFor}. */
export const isWaiting = ({ message }: ConditionState): boolean =>
  partTypes.some((type) => message === waitingFor(type).message);

/** What conditions are made of, beside their states. */
export interface ConditionsOptions {
  /** The generation of the Connector that the states are about. */
  readonly generation: number;
  /** The conditions that the Connector has had so far. */
  readonly before: readonly Condition[];
  /** The time, in milliseconds since 1970. */
  readonly now: number;
  /** Whether a probe is pending, so that an older time of the last probe stays. */
  readonly isPending?: boolean;
}

/** The time of the probe is written at most so often while nothing changes, since each write goes to every watch. */
const probeTimeMs = 60 * 60_000;

/**
 * Creates all conditions, Ready last. The time of a condition is that of its last change of status. All of them have one
 * time of their last probe, which is renewed when one of them changes, and else after an hour.
 */
export function createConditions(
  states: ConditionStates,
  { generation, before, now, isPending = false }: ConditionsOptions,
): readonly Condition[] {
  const found: readonly (readonly [ConditionType, ConditionState])[] = [
    ...partTypes.map((type) => [type, states[type]] as const),
    ["Ready", readiness(states)],
  ];
  const lastOf = (type: ConditionType) => before.find((one) => one.type === type);
  const isKept = found.every(([type, state]) => {
    const last = lastOf(type);
    const ageMs = now - Date.parse(last?.lastProbeTime ?? "");
    return last !== undefined && isSameState(last, state) && (isPending || ageMs < probeTimeMs);
  });
  return found.map(([type, { status, reason, message }]) => {
    const last = lastOf(type);
    const hasTransition = last?.status !== status || last.lastTransitionTime === "";
    return {
      type,
      status,
      reason,
      message,
      observedGeneration: generation,
      lastTransitionTime: hasTransition ? timestamp(now) : last.lastTransitionTime,
      lastProbeTime: isKept && last !== undefined ? last.lastProbeTime : timestamp(now),
    };
  });
}

const isSameState = (one: ConditionState, other: ConditionState): boolean =>
  one.status === other.status && one.reason === other.reason && one.message === other.message;

/**
 * Whether Ready depends on a condition. CACertReady is for information: a registry that lacks a certificate shows in
 * LivenessReady.
 */
const isRequired = (type: PartType): boolean => type !== "CACertReady";

/** The state of Ready. Its reason is that of the first condition that is not True, so that `kubectl get` shows it. */
function readiness(states: ConditionStates): ConditionState {
  const required = partTypes.filter(isRequired);
  const failed =
    required.find((type) => states[type].status === "False") ??
    required.find((type) => states[type].status === "Unknown");
  if (failed === undefined) return good("Ready", "Pods can use this connector");
  const { status, reason, message } = states[failed];
  return { status, reason, message: `${failed}: ${message}` };
}

/** Reads the conditions in a Connector's status, whoever has written them. */
export function readConditions(object: unknown): readonly Condition[] {
  const found = property(property(object, "status"), "conditions");
  if (!Array.isArray(found)) return [];
  return found.map((condition) => {
    const text = (key: string): string => String(property(condition, key) ?? "");
    return {
      type: text("type") as ConditionType,
      status: text("status") as ConditionState["status"],
      reason: text("reason"),
      message: text("message"),
      observedGeneration: Number(property(condition, "observedGeneration") ?? 0),
      lastTransitionTime: text("lastTransitionTime"),
      lastProbeTime: text("lastProbeTime"),
    };
  });
}

/** RFC 3339 with whole seconds, as the API server writes the times of objects. */
export const timestamp = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
