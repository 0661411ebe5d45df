import type { Connector } from "../connector/connector.ts";
import type { ConnectorRef } from "../connector/connector-ref.ts";
import { matches } from "../connector/pattern-set.ts";
import {
  type DefaultPermission,
  type MayUse,
  type Result,
  type ServiceAccountRef,
  serviceAccountRequester,
  Unavailable,
  type Verb,
} from "../connector/platform.ts";
import { isAllowedByDefault } from "../kube/may-use.ts";
import type { Observed } from "./cluster-reader.ts";
import { type Finding, failure, fine, notChecked, warning } from "./report.ts";

/** Whose access to which connector to check. */
export interface AccessCheck {
  readonly account: ServiceAccountRef;
  readonly ref: ConnectorRef;
  /** Undefined where the Connector does not exist, or can't be read. */
  readonly connector: Connector | undefined;
  readonly mayUse: MayUse;
  readonly defaultPermission: DefaultPermission;
  /** The object of the ServiceAccount. */
  readonly observed: Observed;
}

/** Checks whether Pods of a ServiceAccount may use a connector. A failure says which Role to create. */
export async function checkAccess(check: AccessCheck): Promise<readonly Finding[]> {
  const { account, connector } = check;
  const subject = "ServiceAccount";
  const name = `${account.namespace}/${account.name}`;
  const missing = warning(
    subject,
    `there is no ServiceAccount ${name}`,
    `kubectl create serviceaccount ${account.name} -n ${account.namespace}`,
  );
  return [
    ...(check.observed.state === "missing" ? [missing] : []),
    await checkVerb(check, "pull"),
    await checkVerb(check, "push"),
    ...(connector === undefined ? [] : checkRules(connector, name)),
  ];
}

async function checkVerb(check: AccessCheck, verb: Verb): Promise<Finding> {
  const { account, ref, mayUse, defaultPermission } = check;
  const subject = `right to ${verb}`;
  const requester = serviceAccountRequester(account);
  const access = await mayUse(requester, ref, verb).catch(returnUnavailable);
  if (access instanceof Unavailable) return notChecked(subject, access.message);
  const name = `${account.namespace}/${account.name}`;
  if (isAllowedByDefault(requester, ref, defaultPermission)) {
    const setting = `DEFAULT_PERMISSION=${defaultPermission}`;
    return fine(subject, `${name} needs no Role, since the installation has ${setting}`);
  }
  if (access.ok) return fine(subject, `${name} has it`);
  const found = `${name} lacks it: ${access.reason}`;
  const bind = `kubectl create rolebinding connectors-user-${account.name} -n ${ref.namespace} --clusterrole=connectors-user --serviceaccount=${account.namespace}:${account.name}`;
  return failure(subject, found, `for all connectors of the namespace: ${bind}`);
}

function returnUnavailable(error: unknown): Result<void> | Unavailable {
  if (error instanceof Unavailable) return error;
  throw error;
}

/** Checks what the rules of the Connector allow, beside the right. */
function checkRules({ rules }: Connector, name: string): readonly Finding[] {
  if (rules === undefined) return [];
  const subject = "rules";
  const applicable = rules.filter(({ serviceAccounts }) =>
    serviceAccounts.some((pattern) => matches(pattern, name)),
  );
  if (applicable.length === 0) {
    const found = `none of the Connector's ${rules.length} rules is for ${name}: every request is refused`;
    return [failure(subject, found, "add one to spec.params, under rules")];
  }
  const allowed = applicable.map(
    ({ verbs, repositories }) => `${verbs.join("+")} in ${repositories.join(", ")}`,
  );
  return [fine(subject, `${name} may ${allowed.join("; ")}`)];
}
