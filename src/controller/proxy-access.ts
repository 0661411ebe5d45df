import { shareRuns } from "../concurrency.ts";
import { property } from "../connector/document.ts";
import type { Result } from "../connector/platform.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { ApiError, hasStatus } from "../kube/api-error.ts";
import { parseListedConnector } from "../kube/find-connector.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { WatchedCache } from "../kube/watched-cache.ts";
import {
  type DesiredObject,
  ensureObject,
  managedLabels,
  matchesDesired,
} from "./ensure-object.ts";

/** What is needed to grant the proxy access to Secrets. */
export interface ProxyAccessOptions {
  readonly client: Pick<ApiClient, "request">;
  readonly connectors: Pick<WatchedCache<KubeObject>, "list">;
  /** The Roles with our label. */
  readonly roles: Pick<WatchedCache<KubeObject>, "get">;
  /** The RoleBindings with our label. */
  readonly roleBindings: Pick<WatchedCache<KubeObject>, "get">;
  /** The proxy's ServiceAccount. */
  readonly proxy: { readonly namespace: string; readonly name: string };
}

/**
 * Lets the proxy read exactly the Secrets that the Connectors of a namespace refer to.
 * @returns a refusal that says why that can't be done
 * @throws Unavailable, and ApiError 409 where somebody else was faster: it has to be run again
 */
export type GrantProxyAccess = (namespace: string) => Promise<Result<void>>;

/** Creates the function that grants the proxy access, through a Role and a RoleBinding in each namespace. */
export function createProxyAccessGranter(options: ProxyAccessOptions): GrantProxyAccess {
  const { client, connectors, roles, roleBindings, proxy } = options;

  async function remove(
    path: string,
    cache: Pick<WatchedCache<KubeObject>, "get">,
    namespace: string,
  ): Promise<void> {
    const object = cache.get(proxyRoleName, namespace);
    if (object === undefined) return;
    const body = { preconditions: { uid: object.metadata.uid } };
    const call = { method: "DELETE", path: `${path}/${proxyRoleName}`, body } as const;
    await client.request(call).catch((error: unknown) => {
      if (!hasStatus(error, 404)) throw error;
    });
  }

  async function grant(namespace: string): Promise<Result<void>> {
    const rbacPath = `/apis/${rbacGroup}/v1/namespaces/${namespace}`;
    const rolesPath = `${rbacPath}/roles`;
    const bindingsPath = `${rbacPath}/rolebindings`;
    const secrets = referredSecrets(connectors.list(namespace));
    try {
      if (secrets.length === 0) {
        await remove(bindingsPath, roleBindings, namespace);
        await remove(rolesPath, roles, namespace);
        return { ok: true, value: undefined };
      }
      const role = await ensure(client, rolesPath, proxyRole(namespace, secrets), roles);
      if (!role.ok) return role;
      return await ensure(client, bindingsPath, proxyRoleBinding(namespace, proxy), roleBindings);
    } catch (error) {
      if (!(error instanceof ApiError) || hasStatus(error, 409)) throw error;
      return { ok: false, reason: error.message };
    }
  }

  return shareRuns(grant); // all connectors of a namespace come at once when we start
}

async function ensure(
  client: Pick<ApiClient, "request">,
  collection: string,
  desired: DesiredObject,
  cache: Pick<WatchedCache<KubeObject>, "get">,
): Promise<Result<void>> {
  const { name, namespace } = desired.metadata;
  const cached = cache.get(name, namespace);
  const hasOurLabels = ({ metadata }: KubeObject): boolean =>
    matchesDesired(property(metadata, "labels"), managedLabels);
  const { isOurs } = await ensureObject({
    client,
    collection,
    desired,
    cached,
    isOurs: hasOurLabels,
  });
  if (isOurs) return { ok: true, value: undefined };
  const reason =
    `wanted a ${desired.kind} ${namespace}/${name} for the proxy, found one that this controller did not create ` +
    `(it has no label ${Object.entries(managedLabels).flat().join("=")}): remove it`;
  return { ok: false, reason };
}

/** The name of the Role and of the RoleBinding in each namespace with Connectors. */
export const proxyRoleName = "connectors-proxy-secrets";

const rbacGroup = "rbac.authorization.k8s.io";

/** The names of the Secrets that Connectors refer to, sorted, each once. */
export function referredSecrets(connectors: readonly KubeObject[]): readonly string[] {
  const names = connectors.flatMap((object) => {
    const connector = parseListedConnector(object);
    if (!connector.ok) return [];
    const { secretName, caCertSecretName, clientCertSecretName } = connector.value;
    const referred = [secretName, caCertSecretName, clientCertSecretName];
    return referred.filter((name) => name !== undefined);
  });
  return [...new Set(names)].sort();
}

/** The desired Role, which lets the proxy read these Secrets of a namespace and no others. */
export const proxyRole = (namespace: string, secrets: readonly string[]): DesiredObject => ({
  apiVersion: `${rbacGroup}/v1`,
  kind: "Role",
  metadata: { name: proxyRoleName, namespace, labels: managedLabels },
  rules: [{ apiGroups: [""], resources: ["secrets"], resourceNames: secrets, verbs: ["get"] }],
});

/** The desired RoleBinding, which binds the Role to the proxy's ServiceAccount. */
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
