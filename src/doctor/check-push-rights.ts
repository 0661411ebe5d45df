import { listOf, property } from "../connector/document.ts";
import type { Observed } from "./cluster-reader.ts";
import type { InstalledSettings } from "./installed-settings.ts";
import { type Finding, fine, notChecked } from "./report.ts";

/** The objects of RBAC that say who may do what. */
export interface ObservedRights {
  readonly roles: Observed<readonly unknown[]>;
  readonly clusterRoles: Observed<readonly unknown[]>;
  readonly roleBindings: Observed<readonly unknown[]>;
  readonly clusterRoleBindings: Observed<readonly unknown[]>;
}

/** Whom a finding names at most, so that it stays readable in a large cluster. */
const maxNamed = 20;
const subject = "who may push";

/**
 * Names the ServiceAccounts that may get Connectors, and so push through them, and that would lose that with the component
 * separate-push.
 * @param installNamespace whose own ServiceAccounts are not counted
 */
export function checkPushRights(
  rights: ObservedRights,
  {
    separatePush,
    requireProxyVerb,
    defaultPermission,
  }: Pick<InstalledSettings, "separatePush" | "requireProxyVerb" | "defaultPermission">,
  installNamespace: string,
): Finding {
  const isOpen = defaultPermission === "namespace";
  if (separatePush && requireProxyVerb) {
    const others = isOpen ? " for ServiceAccounts of other namespaces" : "";
    const wanted = "needs update connectors/proxy, and every use get connectors/proxy";
    return fine(subject, `${wanted}${others}`);
  }
  const unread = Object.values(rights).find(({ state }) => state === "unknown");
  if (unread !== undefined) return notChecked(subject, unread.why);
  const isOfOwn = ({ account, namespace }: Grant): boolean =>
    isOpen && account.startsWith(`${namespace}/`); // needs no Role there
  const grants = grantsOf(rights).filter(
    (grant) => !grant.account.startsWith(`${installNamespace}/`) && !isOfOwn(grant),
  );
  const losers = [...new Set(grants.map(({ account }) => account))]
    .filter((account) => losesPush(grants.filter((grant) => grant.account === account)))
    .toSorted();
  const found = separatePush
    ? "needs update connectors/proxy"
    : "whoever may get a Connector may also push through it";
  if (losers.length === 0) {
    return fine(subject, `${found}; with the component separate-push no ServiceAccount loses it`);
  }
  const more = losers.length > maxNamed ? `, and ${losers.length - maxNamed} more` : "";
  const named = losers.slice(0, maxNamed).join(", ");
  return fine(
    subject,
    `${found}; with the component separate-push these ServiceAccounts lose it unless they have ` +
      "update connectors/proxy (ClusterRole connectors-user), and the right to pull unless they have get connectors/proxy " +
      `(ClusterRole connectors-puller): ${named}${more}`,
  );
}

/** What one rule lets one ServiceAccount do with Connectors. */
interface Grant {
  /** `namespace/name`, or the name of a group of ServiceAccounts. */
  readonly account: string;
  /** Where; undefined for every namespace. */
  readonly namespace: string | undefined;
  readonly right: "get" | "push";
  /** The Connectors that are meant; undefined for all of them. */
  readonly names: readonly string[] | undefined;
}

/** Whether an account may get a Connector, and not what a push needs then. */
const losesPush = (grants: readonly Grant[]): boolean =>
  grants
    .filter(({ right }) => right === "get")
    .some((get) => !grants.some((push) => push.right === "push" && covers(push, get)));

const covers = (push: Grant, get: Grant): boolean =>
  (push.namespace === undefined || push.namespace === get.namespace) &&
  (push.names === undefined || get.names?.every((name) => push.names?.includes(name)) === true);

function grantsOf(rights: ObservedRights): readonly Grant[] {
  const roles = new Map<string, unknown>();
  for (const role of found(rights.roles))
    roles.set(`Role ${namespaceOf(role)}/${nameOf(role)}`, role);
  for (const role of found(rights.clusterRoles)) roles.set(`ClusterRole ${nameOf(role)}`, role);
  const bindings = [...found(rights.roleBindings), ...found(rights.clusterRoleBindings)];
  return bindings.flatMap((binding) => {
    const reference = property(binding, "roleRef");
    const name = String(property(reference, "name"));
    if (name.startsWith("system:")) return []; // the cluster's own controllers
    const namespace = namespaceOf(binding);
    const isCluster = property(reference, "kind") === "ClusterRole";
    const role = roles.get(isCluster ? `ClusterRole ${name}` : `Role ${namespace}/${name}`);
    const accounts = listOf(property(binding, "subjects")).flatMap((one) => accountOf(one));
    return accounts.flatMap((account) =>
      listOf(property(role, "rules"))
        .flatMap(rightsOf)
        .map((grant) => ({ ...grant, account, namespace })),
    );
  });
}

/** ServiceAccounts, and the groups that all or those of one namespace are in. */
function accountOf(of: unknown): readonly string[] {
  const [kind, name] = [property(of, "kind"), String(property(of, "name"))];
  if (kind === "ServiceAccount") return [`${property(of, "namespace")}/${name}`];
  return kind === "Group" && name.startsWith("system:serviceaccounts") ? [name] : [];
}

/** What a rule allows: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#role-and-clusterrole */
function rightsOf(rule: unknown): readonly Pick<Grant, "right" | "names">[] {
  const has = (field: string, ...wanted: readonly string[]): boolean =>
    listOf(property(rule, field)).some((value) => wanted.includes(String(value)));
  if (!has("apiGroups", "connectors.alauda.io", "*")) return [];
  const limited = listOf(property(rule, "resourceNames")).map(String);
  const names = limited.length === 0 ? undefined : limited;
  const mayGet = has("resources", "connectors", "*") && has("verbs", "get", "*");
  const mayPush =
    has("resources", "connectors/proxy", "*/proxy", "*") && has("verbs", "update", "*");
  return [
    ...(mayGet ? [{ right: "get", names } as const] : []),
    ...(mayPush ? [{ right: "push", names } as const] : []),
  ];
}

const found = (observed: Observed<readonly unknown[]>): readonly unknown[] =>
  observed.state === "found" ? observed.value : [];

const nameOf = (object: unknown): string => String(property(property(object, "metadata"), "name"));

function namespaceOf(object: unknown): string | undefined {
  const namespace = property(property(object, "metadata"), "namespace");
  return typeof namespace === "string" ? namespace : undefined;
}
