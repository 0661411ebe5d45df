import { parseCertificates } from "../connector/credential.ts";
import { property } from "../connector/document.ts";
import type { ApiClient } from "../kube/api-client.ts";
import type { KubeObject } from "../kube/object-store.ts";
import { sharedCaConfigMapKey, sharedCaConfigMapName } from "../kube/read-upstream-secrets.ts";
import type { WatchedCache } from "../kube/watched-cache.ts";
import type { Log } from "../log.ts";
import { applyObject, managedLabels } from "./ensure-object.ts";

/** What is needed to keep the ConfigMap with the certificates that every connector trusts. */
export interface SharedCasKeeperOptions {
  readonly client: Pick<ApiClient, "request">;
  readonly installNamespace: string;
  /** A cache that has the labelled Secrets. */
  readonly secrets: Pick<WatchedCache<KubeObject>, "list">;
  /** A cache that has the ConfigMap. */
  readonly configMaps: Pick<WatchedCache<KubeObject>, "get">;
  readonly log: Log;
}

/**
 * Copies the certificates of the labelled Secrets into a ConfigMap, so that the nodes need no right to list Secrets: a Role
 * can't name a label. The ConfigMap is there also where no Secret has the label.
 * @throws what `ApiClient.request` throws: ApiError 409 where another replica was faster
 */
export type KeepSharedCas = () => Promise<undefined>;

/** Creates the function that keeps the ConfigMap. */
export function createSharedCasKeeper(options: SharedCasKeeperOptions): KeepSharedCas {
  const { client, installNamespace: namespace, secrets, configMaps, log } = options;
  const path = `/api/v1/namespaces/${namespace}/configmaps/${sharedCaConfigMapName}`;
  return async () => {
    const cached = configMaps.get(sharedCaConfigMapName, namespace);
    const bundle = sharedBundle(secrets.list());
    if (property(property(cached, "data"), sharedCaConfigMapKey) === bundle) return undefined;
    const { resourceVersion } = cached?.metadata ?? {};
    const version = resourceVersion === undefined ? {} : { resourceVersion };
    await applyObject(client, path, {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: sharedCaConfigMapName, namespace, labels: managedLabels, ...version },
      data: { [sharedCaConfigMapKey]: bundle },
    });
    log("info", "published the certificates that every connector trusts", { reference: path });
    return undefined;
  };
}

/** The certificates of Secrets as one PEM text, each once, in an order that does not depend on that of the Secrets. */
const sharedBundle = (secrets: readonly KubeObject[]): string =>
  [...new Set(secrets.flatMap(parseCertificates).map((certificate) => certificate.trim()))]
    .toSorted()
    .map((certificate) => `${certificate}\n`)
    .join("");
