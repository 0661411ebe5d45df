import type { Environment } from "../config/cluster-settings.ts";
import {
  createInClusterAccess,
  loadKubeconfigAccess,
  serviceAccountFolder,
} from "../kube/api-access.ts";
import { type ApiClient, createApiClient } from "../kube/api-client.ts";
import type { KubeObject } from "../kube/object-store.ts";
import { createWatchedCache, type WatchedCache } from "../kube/watched-cache.ts";
import type { Log } from "../log.ts";

/** The connection of a role to its cluster: a client, and caches of what the role needs. */
export interface ClusterConnection {
  readonly client: ApiClient;
  /** Watches a collection. @param query `labelSelector`, `fieldSelector` */
  watch<T extends KubeObject>(
    path: string,
    query?: Readonly<Record<string, string>>,
  ): WatchedCache<T>;
  /** Watches one object of a collection. */
  watchOne<T extends KubeObject>(collection: string, name: string): WatchedCache<T>;
  /** Ends all watches. */
  stop(): void;
}

/**
 * Connects to the cluster: in a Pod as its ServiceAccount, elsewhere as the user of kubectl's kubeconfig.
 * @throws Error where there is no usable kubeconfig
 */
export async function connectToCluster(
  environment: Environment,
  log: Log,
): Promise<ClusterConnection> {
  const host = environment.KUBERNETES_SERVICE_HOST;
  const port = environment.KUBERNETES_SERVICE_PORT ?? "443";
  const access =
    host === undefined
      ? await loadKubeconfigAccess({})
      : createInClusterAccess({ host, port, folder: serviceAccountFolder });
  const client = createApiClient({ access });
  const abort = new AbortController();
  const watch = <T extends KubeObject>(
    path: string,
    query: Readonly<Record<string, string>> = {},
  ): WatchedCache<T> =>
    createWatchedCache<T>({ client, path, query, log, signal: abort.signal, random: Math.random });
  return {
    client,
    watch,
    watchOne: (collection, name) => watch(collection, { fieldSelector: `metadata.name=${name}` }),
    stop: () => abort.abort(),
  };
}
