import type { Condition } from "./conditions.ts";

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
