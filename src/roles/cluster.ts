import type { Environment } from "../config/cluster-settings.ts";
import { createInClusterAccess, serviceAccountFolder } from "../kube/api-access.ts";
import { type ApiClient, createApiClient } from "../kube/api-client.ts";
import type { KubeObject } from "../kube/object-store.ts";
import { createWatchedCache, type WatchedCache } from "../kube/watched-cache.ts";
import type { Log } from "../log.ts";

/** What a role has of the cluster: a client, and copies of what it needs, kept current. */
export interface ClusterConnection {
  readonly client: ApiClient;
  watch<T extends KubeObject>(
    path: string,
    query?: Readonly<Record<string, string>>,
  ): WatchedCache<T>;
  /** One object by its name. */
  watchOne<T extends KubeObject>(collection: string, name: string): WatchedCache<T>;
  stop(): void;
}

/** As this Pod's ServiceAccount, or, outside of a cluster, as whom kubectl would be. */
export async function connectToCluster(
  environment: Environment,
  log: Log,
): Promise<ClusterConnection> {
  const host = environment.KUBERNETES_SERVICE_HOST;
  const port = environment.KUBERNETES_SERVICE_PORT ?? "443";
  const access =
    host === undefined
      ? await (await import("../kube/api-access.ts")).loadKubeconfigAccess({})
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
