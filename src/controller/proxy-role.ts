import { parseConnector } from "../connector/connector.ts";
import type { KubeObject } from "../kube/object-store.ts";
import { type DesiredObject, managedLabels } from "./ensure-object.ts";

/** What the Role and the RoleBinding in each namespace with Connectors are called. */
export const proxyRoleName = "connectors-proxy-secrets";

const rbacGroup = "rbac.authorization.k8s.io";

/** The Secrets that Connectors refer to, each once, in the order of their names. */
export function referredSecrets(connectors: readonly KubeObject[]): readonly string[] {
  const names = connectors.flatMap((object) => {
    const connector = parseConnector(object);
    if (!connector.ok) return [];
    const { secretName, caCertSecretName } = connector.value;
    return [secretName, caCertSecretName].filter((name) => name !== undefined);
  });
  return [...new Set(names)].sort();
}

/** Lets the proxy read these Secrets of a namespace, one by one, and no others. */
export const proxyRole = (namespace: string, secrets: readonly string[]): DesiredObject => ({
  apiVersion: `${rbacGroup}/v1`,
  kind: "Role",
  metadata: { name: proxyRoleName, namespace, labels: managedLabels },
  rules: [{ apiGroups: [""], resources: ["secrets"], resourceNames: secrets, verbs: ["get"] }],
});

export const proxyRoleBinding = (
  namespace: string,
  proxy: { readonly namespace: string; readonly name: string },
): DesiredObject => ({
  apiVersion: `${rbacGroup}/v1`,
  kind: "RoleBinding",
  metadata: { name: proxyRoleName, namespace, labels: managedLabels },
  roleRef: { apiGroup: rbacGroup, kind: "Role", name: proxyRoleName },
  subjects: [{ kind: "ServiceAccount", namespace: proxy.namespace, name: proxy.name }],
});
