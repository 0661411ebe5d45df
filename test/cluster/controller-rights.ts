/** What the controller's ServiceAccount may do, and nothing more: see rights() of the proxy in kube.test.ts. */

export interface ControllerRights {
  /** The install namespace. */
  readonly namespace: string;
  readonly serviceAccount: string;
  /** What the objects of the cluster's scope are called. */
  readonly clusterName: string;
  /** The ClusterRole with `get secrets`. */
  readonly secretReader: string;
  /** Whether it is bound to that everywhere. */
  readonly readsAllSecrets: boolean;
}

const rbac = { apiVersion: "rbac.authorization.k8s.io/v1" };
const rbacGroup = "rbac.authorization.k8s.io";

export function controllerRights(options: ControllerRights): readonly object[] {
  const { namespace, serviceAccount, clusterName, secretReader, readsAllSecrets } = options;
  const subjects = [{ kind: "ServiceAccount", name: serviceAccount, namespace }];
  const bind = (kind: "Role" | "ClusterRole", name: string, metadata: object): object => ({
    ...rbac,
    kind: `${kind}Binding`,
    metadata,
    subjects,
    roleRef: { apiGroup: rbacGroup, kind, name },
  });
  const rule = (
    group: string,
    resources: readonly string[],
    verbs: readonly string[],
    resourceNames?: readonly string[],
  ): object => ({
    apiGroups: [group],
    resources,
    verbs,
    ...(resourceNames === undefined ? {} : { resourceNames }),
  });
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: serviceAccount, namespace } },
    {
      ...rbac,
      kind: "ClusterRole",
      metadata: { name: clusterName },
      rules: [
        rule("connectors.alauda.io", ["connectors"], ["get", "list", "watch"]),
        rule("connectors.alauda.io", ["connectors/status"], ["patch"]),
        rule("", ["services"], ["get", "list", "watch", "create", "patch"]),
        rule(rbacGroup, ["roles", "rolebindings"], ["get", "list", "watch", "create"]),
        rule(
          rbacGroup,
          ["roles", "rolebindings"],
          ["patch", "delete"],
          ["connectors-proxy-secrets"],
        ),
        rule("events.k8s.io", ["events"], ["create", "patch"]),
      ],
    },
    bind("ClusterRole", clusterName, { name: clusterName }),
    {
      ...rbac,
      kind: "ClusterRole",
      metadata: { name: secretReader },
      rules: [rule("", ["secrets"], ["get"])],
    },
    ...(readsAllSecrets
      ? [bind("ClusterRole", secretReader, { name: `${clusterName}-secrets` })]
      : []),
    {
      ...rbac,
      kind: "Role",
      metadata: { name: serviceAccount, namespace },
      rules: [
        rule("", ["secrets"], ["list", "watch", "create"]), // those with certificates are found by their label
        rule("", ["secrets"], ["get", "patch"], ["connectors-proxy-keys"]),
        rule(
          "",
          ["configmaps"],
          ["list", "watch", "patch"],
          ["connectors-proxy-ca", "connectors-shared-cas"],
        ),
        rule("", ["configmaps"], ["create"]),
      ],
    },
    bind("Role", serviceAccount, { name: serviceAccount, namespace }),
  ];
}
