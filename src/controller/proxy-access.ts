import { shareRuns } from "../concurrency.ts";
import { parseConnector } from "../connector/connector.ts";
import { property } from "../connector/document.ts";
import type { Result } from "../connector/platform.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { ApiError, hasStatus } from "../kube/api-error.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { WatchedCache } from "../kube/watched-cache.ts";
import { type DesiredObject, ensureObject, isAsWanted, managedLabels } from "./ensure-object.ts";

export interface ProxyAccessOptions {
  readonly client: Pick<ApiClient, "request">;
  readonly connectors: Pick<WatchedCache<KubeObject>, "list">;
  /** Those that are labelled as ours. */
  readonly roles: Pick<WatchedCache<KubeObject>, "get">;
  readonly roleBindings: Pick<WatchedCache<KubeObject>, "get">;
  /** The proxy's ServiceAccount. */
  readonly proxy: { readonly namespace: string; readonly name: string };
}

/**
 * Lets the proxy read exactly the Secrets that the Connectors of a namespace refer to. A refusal says
 * why that can't be done.
 * @throws Unavailable, and ApiError where it may work the next time (409)
 */
export type GiveProxyAccess = (namespace: string) => Promise<Result<void>>;

export function proxyAccess(options: ProxyAccessOptions): GiveProxyAccess {
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

  async function give(namespace: string): Promise<Result<void>> {
    const [rolesPath, bindingsPath] = ["roles", "rolebindings"].map(
      (plural) => `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}/${plural}`,
    ) as [string, string];
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

  return shareRuns(give); // all connectors of a namespace come at once when we start
}

async function ensure(
  client: Pick<ApiClient, "request">,
  collection: string,
  wanted: DesiredObject,
  cache: Pick<WatchedCache<KubeObject>, "get">,
): Promise<Result<void>> {
  const { name, namespace } = wanted.metadata;
  const seen = cache.get(name, namespace);
  const isOurs = ({ metadata }: KubeObject): boolean =>
    isAsWanted(property(metadata, "labels"), managedLabels);
  const { ours } = await ensureObject({ client, collection, wanted, seen, isOurs });
  if (ours) return { ok: true, value: undefined };
  const reason =
    `wanted a ${wanted.kind} ${namespace}/${name} for the proxy, found one that this controller did not create ` +
    `(it has no label ${Object.entries(managedLabels).flat().join("=")}): remove it`;
  return { ok: false, reason };
}

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
