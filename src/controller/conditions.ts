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
}

/** Creates the state of a condition that can't be checked before another one is True. @param type the other one */
export const waitingFor = (type: PartType): ConditionState => {
  const subject = type.replace(/Ready$/, "");
  return unknown(`WaitingFor${subject}`, `checked once ${type} is True`);
};

/** What conditions are made of, beside their states. */
export interface ConditionsOptions {
  /** The generation of the Connector that the states are about. */
  readonly generation: number;
  /** The conditions that the Connector has had so far. */
  readonly before: readonly Condition[];
  /** The time, in milliseconds since 1970. */
  readonly now: number;
}

/** Creates all conditions, Ready last. The time of a condition is that of its last change of status. */
export function createConditions(
  states: ConditionStates,
  { generation, before, now }: ConditionsOptions,
): readonly Condition[] {
  const condition = (type: ConditionType, state: ConditionState): Condition => {
    const { status, reason, message } = state;
    const last = before.find((one) => one.type === type);
    const lastTransitionTime =
      last?.status === status && last.lastTransitionTime !== ""
        ? last.lastTransitionTime
        : timestamp(now);
    return { type, status, reason, message, observedGeneration: generation, lastTransitionTime };
  };
  return [
    ...partTypes.map((type) => condition(type, states[type])),
    condition("Ready", readiness(states)),
  ];
}

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
    };
  });
}

/** RFC 3339 with whole seconds, as the API server writes the times of objects. */
export const timestamp = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
