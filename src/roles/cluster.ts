import type { Environment } from "../config/cluster-settings.ts";
import {
  createInClusterAccess,
  loadKubeconfigAccess,
  serviceAccountFolder,
} from "../kube/api-access.ts";
import { type ApiClient, createApiClient } from "../kube/api-client.ts";
import { connectorsPath, connectorsPathIn } from "../kube/find-connector.ts";
import { specOnly, tenantBounds } from "../kube/object-bounds.ts";
import type { KubeObject } from "../kube/object-store.ts";
import { createWatchedCache, type WatchedCache } from "../kube/watched-cache.ts";
import type { Log } from "../log.ts";

/** The connection of a role to its cluster: a client, and caches of what the role needs. */
export interface ClusterConnection {
  readonly client: ApiClient;
  /**
   * Watches all Connectors, or those of one namespace. Nobody but the controller reads more of them than the spec.
   */
  watchConnectors(namespace?: string): WatchedCache<KubeObject>;
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
  const options = { client, log, signal: abort.signal, random: Math.random };
  return {
    client,
    watchConnectors: (namespace) =>
      createWatchedCache<KubeObject>({
        ...options,
        path: namespace === undefined ? connectorsPath : connectorsPathIn(namespace),
        bounds: tenantBounds,
        keep: specOnly,
      }),
    watchOne: <T extends KubeObject>(collection: string, name: string): WatchedCache<T> =>
      createWatchedCache<T>({
        ...options,
        path: collection,
        query: { fieldSelector: `metadata.name=${name}` },
      }),
    stop: () => abort.abort(),
  };
}
