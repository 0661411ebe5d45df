import { matches } from "../connector/access-rules.ts";
import type { Connector } from "../connector/connector.ts";
import type { ConnectorRef } from "../connector/connector-ref.ts";
import {
  type MayUse,
  type Result,
  type ServiceAccountRef,
  serviceAccountRequester,
  Unavailable,
  type Verb,
} from "../connector/platform.ts";
import type { Seen } from "./cluster-reader.ts";
import { type Finding, failure, fine, notChecked, warning } from "./report.ts";

export interface AccessQuestion {
  readonly account: ServiceAccountRef;
  readonly ref: ConnectorRef;
  /** Undefined where it is not there, or can't be read. */
  readonly connector: Connector | undefined;
  readonly mayUse: MayUse;
  /** The ServiceAccount itself. */
  readonly seen: Seen;
}

/** Whether Pods of a ServiceAccount may use a connector; a refusal says which Role to create. */
export async function checkAccess(question: AccessQuestion): Promise<readonly Finding[]> {
  const { account, connector } = question;
  const subject = "ServiceAccount";
  const name = `${account.namespace}/${account.name}`;
  const missing = warning(
    subject,
    `there is no ServiceAccount ${name}`,
    `kubectl create serviceaccount ${account.name} -n ${account.namespace}`,
  );
  return [
    ...(question.seen.state === "missing" ? [missing] : []),
    await checkVerb(question, "pull"),
    await checkVerb(question, "push"),
    ...(connector === undefined ? [] : checkRules(connector, name)),
  ];
}

async function checkVerb({ account, ref, mayUse }: AccessQuestion, verb: Verb): Promise<Finding> {
  const subject = `right to ${verb}`;
  const answer = await mayUse(serviceAccountRequester(account), ref, verb).catch(asUnknown);
  if (answer instanceof Unavailable) return notChecked(subject, answer.message);
  const name = `${account.namespace}/${account.name}`;
  if (answer.ok) return fine(subject, `${name} has it`);
  const found = `${name} lacks it: ${answer.reason}`;
  const bind = `kubectl create rolebinding connectors-user-${account.name} -n ${ref.namespace} --clusterrole=connectors-user --serviceaccount=${account.namespace}:${account.name}`;
  return failure(subject, found, `for all connectors of the namespace: ${bind}`);
}

function asUnknown(error: unknown): Result<void> | Unavailable {
  if (error instanceof Unavailable) return error;
  throw error;
}

/** What the Connector itself has to say, once the right is there. */
function checkRules({ rules }: Connector, name: string): readonly Finding[] {
  if (rules === undefined) return [];
  const subject = "rules";
  const theirs = rules.filter(({ serviceAccounts }) =>
    serviceAccounts.some((pattern) => matches(pattern, name)),
  );
  if (theirs.length === 0) {
    const found = `none of the Connector's ${rules.length} rules is for ${name}: every request is refused`;
    return [failure(subject, found, "add one to spec.params, under rules")];
  }
  const allowed = theirs.map(
    ({ verbs, repositories }) => `${verbs.join("+")} in ${repositories.join(", ")}`,
  );
  return [fine(subject, `${name} may ${allowed.join("; ")}`)];
}
