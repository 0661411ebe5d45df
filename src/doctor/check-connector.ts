import type { Connector } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import { describeProblems, type Problem } from "../connector/problem.ts";
import { type Finding, failure, fine, warning } from "./finding.ts";
import { judge, type Seen } from "./seen.ts";

/** Whether there is such a Connector, and whether it can be read. @param read what came of reading it */
export function checkConnector(
  object: Seen,
  read: { readonly connector?: Connector; readonly problems?: readonly Problem[] },
  ref: ConnectorRef,
): Finding {
  const subject = "Connector";
  return judge(subject, object, {
    missing: () =>
      failure(
        subject,
        `there is no Connector ${showRef(ref)}`,
        `kubectl get connectors -n ${ref.namespace}`,
      ),
    found() {
      const { connector, problems = [] } = read;
      if (connector !== undefined)
        return fine(subject, connector.address.origin + connector.address.basePath);
      return failure(
        subject,
        describeProblems(problems),
        `kubectl edit connector ${ref.name} -n ${ref.namespace}`,
      );
    },
  });
}

/** A condition in a Connector's status. */
export interface ShownCondition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
}

export function conditionsOf(object: unknown): readonly ShownCondition[] {
  const found = property(property(object, "status"), "conditions");
  if (!Array.isArray(found)) return [];
  return found.map((condition) => {
    const text = (key: string): string => String(property(condition, key) ?? "");
    return {
      type: text("type"),
      status: text("status"),
      reason: text("reason"),
      message: text("message"),
    };
  });
}

/** What the controller says: one finding where all is well, else one for each condition that is not True. */
export function checkConditions(object: unknown): readonly Finding[] {
  const subject = "conditions";
  const [generation, observed] = [
    property(property(object, "metadata"), "generation"),
    property(property(object, "status"), "observedGeneration"),
  ];
  const conditions = conditionsOf(object);
  if (conditions.length === 0) {
    return [
      failure(
        subject,
        "there are none: no controller has examined the Connector",
        "see the controller above",
      ),
    ];
  }
  const late =
    generation === observed
      ? []
      : [
          warning(
            subject,
            "they describe the Connector before its last change",
            "wait some seconds, then see the controller above",
          ),
        ];
  const wrong = conditions
    .filter(({ type, status }) => type !== "Ready" && status !== "True")
    .map(judgeCondition);
  if (late.length + wrong.length > 0) return [...late, ...wrong];
  const ready = conditions.find(({ type }) => type === "Ready");
  return ready?.status === "True"
    ? [fine(subject, "all are True")]
    : [failure(subject, `Ready is ${ready?.status ?? "missing"}`, "see the controller above")];
}

const where = "docs/connector.md says what to do about each reason";

/** Certificates are for information, and what waits for something else is not at fault. */
function judgeCondition({ type, status, reason, message }: ShownCondition): Finding {
  const found = `${status}, ${reason}: ${message}`;
  const isFault = status === "False" && type !== "CACertReady";
  return isFault ? failure(type, found, where) : warning(type, found, where);
}
