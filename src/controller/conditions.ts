import { property } from "../connector/document.ts";

/** In the order in which they depend on each other, and are shown. */
const partTypes = [
  "ConnectorClassReady",
  "SecretReady",
  "LivenessReady",
  "AuthReady",
  "ProxyServiceReady",
  "CACertReady",
] as const;

export type PartType = (typeof partTypes)[number];
export type ConditionType = PartType | "Ready";

/** What was found out about one thing. */
export interface ConditionState {
  readonly status: "True" | "False" | "Unknown";
  /** One word in CamelCase, for programs and for the column of kubectl. */
  readonly reason: string;
  /** For people: what was wanted, what was found, what to do. Never a Secret's value. */
  readonly message: string;
}

export const good = (reason: string, message: string): ConditionState => ({
  ...{ status: "True", reason, message },
});
export const bad = (reason: string, message: string): ConditionState => ({
  ...{ status: "False", reason, message },
});
export const unknown = (reason: string, message: string): ConditionState => ({
  ...{ status: "Unknown", reason, message },
});

export type ConditionStates = Readonly<Record<PartType, ConditionState>>;

/** A finding as a Connector's status has it, the API's metav1.Condition. */
export interface Condition extends ConditionState {
  readonly type: ConditionType;
  readonly observedGeneration: number;
  readonly lastTransitionTime: string;
}

/** What can't be told before something else is right. */
export const waitingFor = (type: PartType): ConditionState => {
  const subject = type.replace(/Ready$/, "");
  return unknown(`WaitingFor${subject}`, `checked once ${type} is True`);
};

export interface ConditionsOptions {
  /** The generation of the Connector that the findings are about. */
  readonly generation: number;
  /** The conditions so far. */
  readonly before: readonly Condition[];
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** All conditions, Ready last. The time of a condition is that of its last change of status. */
export function conditionsOf(
  findings: ConditionStates,
  { generation, before, now }: ConditionsOptions,
): readonly Condition[] {
  const condition = (type: ConditionType, finding: ConditionState): Condition => {
    const { status, reason, message } = finding;
    const last = before.find((one) => one.type === type);
    const lastTransitionTime =
      last?.status === status && last.lastTransitionTime !== ""
        ? last.lastTransitionTime
        : timestamp(now);
    return { type, status, reason, message, observedGeneration: generation, lastTransitionTime };
  };
  return [
    ...partTypes.map((type) => condition(type, findings[type])),
    condition("Ready", readiness(findings)),
  ];
}

/** Certificates are for information: what lacks one shows in LivenessReady. */
const isNeeded = (type: PartType): boolean => type !== "CACertReady";

/** The reason is that of what is wrong, so that it shows in the table of kubectl. */
function readiness(findings: ConditionStates): ConditionState {
  const needed = partTypes.filter(isNeeded);
  const wrong =
    needed.find((type) => findings[type].status === "False") ??
    needed.find((type) => findings[type].status === "Unknown");
  if (wrong === undefined) return good("Ready", "Pods can use this connector");
  const { status, reason, message } = findings[wrong];
  return { status, reason, message: `${wrong}: ${message}` };
}

/** The conditions in a Connector's status, by whomever they were written. */
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
