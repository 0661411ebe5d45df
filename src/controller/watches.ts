import { caConfigMapName, keysSecretName } from "../connector/proxy-keys.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { connectorsPath } from "../kube/find-connector.ts";
import type { KubeObject } from "../kube/object-store.ts";
import { sharedCaLabel } from "../kube/read-upstream-secrets.ts";
import { type CacheTiming, type WatchedCache, watchCache } from "../kube/watched-cache.ts";
import type { Log } from "../log.ts";
import { managedSelector } from "./desired-object.ts";

export interface WatchesOptions {
  readonly client: ApiClient;
  readonly installNamespace: string;
  readonly log: Log;
  /** Ends them. */
  readonly signal: AbortSignal;
  /** In [0, 1). */
  readonly random: () => number;
  readonly timing?: Partial<CacheTiming> | undefined;
}

type Cache = WatchedCache<KubeObject>;

/** What the controller keeps an eye on. Secrets of other namespaces are read when they are needed. */
export interface Watches {
  readonly connectors: Cache;
  /** Services, Roles and RoleBindings that are labelled as ours. */
  readonly services: Cache;
  readonly roles: Cache;
  readonly roleBindings: Cache;
  /** In the install namespace: Secrets with certificates that every connector trusts. */
  readonly sharedCas: Cache;
  /** There, too: the keys of all proxies, and what is published of them. */
  readonly proxyKeys: Cache;
  readonly proxyCa: Cache;
}

export function startWatches(options: WatchesOptions): Watches {
  const { timing = {}, installNamespace, ...rest } = options;
  const watch = (path: string, query: Readonly<Record<string, string>> = {}): Cache =>
    watchCache({ ...rest, timing, path, query });
  const ours = { labelSelector: managedSelector };
  const named = (name: string): Readonly<Record<string, string>> => ({
    fieldSelector: `metadata.name=${name}`,
  });
  const rbac = "/apis/rbac.authorization.k8s.io/v1";
  const installed = `/api/v1/namespaces/${installNamespace}`;
  return {
    connectors: watch(connectorsPath),
    services: watch("/api/v1/services", ours),
    roles: watch(`${rbac}/roles`, ours),
    roleBindings: watch(`${rbac}/rolebindings`, ours),
    sharedCas: watch(`${installed}/secrets`, { labelSelector: sharedCaLabel }),
    proxyKeys: watch(`${installed}/secrets`, named(keysSecretName)),
    proxyCa: watch(`${installed}/configmaps`, named(caConfigMapName)),
  };
}
