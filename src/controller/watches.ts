import { hash } from "node:crypto";
import { otherStatusManager } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import { caConfigMapName, keysSecretName } from "../connector/proxy-keys.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { connectorsPath } from "../kube/find-connector.ts";
import { type ObjectBounds, tenantBounds, withoutManagedFields } from "../kube/object-bounds.ts";
import type { KubeObject } from "../kube/object-store.ts";
import { sharedCaConfigMapName, sharedCaLabel } from "../kube/read-upstream-secrets.ts";
import { type CacheTiming, createWatchedCache, type WatchedCache } from "../kube/watched-cache.ts";
import type { Log } from "../log.ts";
import { connectorOfService } from "./connector-service.ts";
import { generationOf, isObserved } from "./connector-status.ts";
import { managedSelector } from "./ensure-object.ts";
import { proxyRoleName } from "./proxy-access.ts";

/** What is needed to watch what the controller depends on. */
export interface WatchesOptions {
  readonly client: ApiClient;
  readonly installNamespace: string;
  readonly log: Log;
  /** Ends the watches. */
  readonly signal: AbortSignal;
  /** A random number in [0, 1), for jitter. */
  readonly random: () => number;
  readonly timing?: Partial<CacheTiming> | undefined;
}

type Cache = WatchedCache<KubeObject>;

/** The caches of what the controller watches. Secrets of other namespaces are read when they are needed. */
export interface Watches {
  readonly connectors: Cache;
  /** The Services with our label. */
  readonly services: Cache;
  /** The Roles with our label. */
  readonly roles: Cache;
  /** The RoleBindings with our label. */
  readonly roleBindings: Cache;
  /** The Secrets of the install namespace with certificates that every connector trusts. */
  readonly sharedCas: Cache;
  /** The ConfigMap with their certificates, for the nodes. */
  readonly sharedCaBundle: Cache;
  /** The Secret with the keys that all proxies share. */
  readonly proxyKeys: Cache;
  /** The ConfigMap with their published certificates. */
  readonly proxyCa: Cache;
}

/** Starts all watches. */
export function startWatches(options: WatchesOptions): Watches {
  const { timing = {}, installNamespace, ...rest } = options;
  const watch = (
    path: string,
    query: Readonly<Record<string, string>>,
    bounds?: { readonly bounds: ObjectBounds },
  ): Cache => createWatchedCache({ ...rest, timing, path, query, ...bounds });
  const ours = { labelSelector: managedSelector };
  // A tenant may give our label to Roles of its own. Those of other names concern nobody here.
  const ourRoles = { ...ours, fieldSelector: `metadata.name=${proxyRoleName}` };
  const named = (name: string): Readonly<Record<string, string>> => ({
    fieldSelector: `metadata.name=${name}`,
  });
  const rbacPath = "/apis/rbac.authorization.k8s.io/v1";
  const installPath = `/api/v1/namespaces/${installNamespace}`;
  return {
    connectors: createWatchedCache({
      ...rest,
      timing,
      path: connectorsPath,
      bounds: tenantBounds,
      keep: keptOfConnector,
    }),
    services: watch("/api/v1/services", ours, { bounds: tenantBounds }),
    roles: watch(`${rbacPath}/roles`, ourRoles),
    roleBindings: watch(`${rbacPath}/rolebindings`, ourRoles),
    sharedCas: watch(`${installPath}/secrets`, { labelSelector: sharedCaLabel }),
    sharedCaBundle: watch(`${installPath}/configmaps`, named(sharedCaConfigMapName)),
    proxyKeys: watch(`${installPath}/secrets`, named(keysSecretName)),
    proxyCa: watch(`${installPath}/configmaps`, named(caConfigMapName)),
  };
}

/** Functions that put something into the work queue. */
export interface Triggers {
  /** Has a Connector reconciled after so many milliseconds, at once unless given. */
  connector(ref: ConnectorRef, delayMs?: number): void;
  /** Has the proxy's access to the Secrets of a namespace reconciled. */
  namespace(name: string): void;
  /** Has the next step with the proxies' keys taken. */
  proxyKeys(): void;
  /** Has the certificates that every connector trusts copied for the nodes. */
  sharedCas(): void;
}

/** Reconciliations that are not urgent are spread over so many milliseconds. */
const spreadMs = 30_000;

/**
 * Triggers a reconciliation of everything that exists, and from then on of whatever changes. A change of a Connector's
 * status triggers none: two replicas for which a registry looks different would trigger each other for ever.
 * @param random a random number in [0, 1)
 */
export function connectTriggers(watches: Watches, triggers: Triggers, random: () => number): void {
  const { connectors, services, roles, roleBindings, sharedCas, sharedCaBundle } = watches;
  const { proxyKeys, proxyCa } = watches;
  const versions = new Map<string, string>();

  const triggerAll = (delayMs: (object: KubeObject) => number): void => {
    for (const object of connectors.list()) {
      versions.set(showRef(refOf(object.metadata)), versionOf(object));
      triggers.connector(refOf(object.metadata), delayMs(object));
    }
  };
  const randomDelayMs = (): number => random() * spreadMs;

  connectors.onChange(({ object, ...change }) => {
    const ref = refOf(change);
    const version = object === undefined ? undefined : versionOf(object);
    if (versions.get(showRef(ref)) === version) return;
    triggers.connector(ref);
    if (version !== undefined) {
      versions.set(showRef(ref), version);
      return;
    }
    versions.delete(showRef(ref));
    triggers.namespace(ref.namespace); // the proxy no longer needs its Secrets
  });
  services.onChange((change) => {
    const name = connectorOfService(change.name);
    if (name !== undefined) triggers.connector({ ...refOf(change), name });
  });
  for (const cache of [roles, roleBindings]) {
    cache.onChange(({ name, namespace }) => {
      if (name === proxyRoleName) triggers.namespace(namespace ?? "");
    });
  }
  sharedCas.onChange(() => {
    triggers.sharedCas();
    triggerAll(randomDelayMs);
  });
  sharedCaBundle.onChange(triggers.sharedCas);
  for (const cache of [proxyKeys, proxyCa]) cache.onChange(triggers.proxyKeys);

  triggerAll((object) => (isObserved(object) ? randomDelayMs() : 0));
  for (const { metadata } of [roles, roleBindings].flatMap((cache) => cache.list())) {
    triggers.namespace(metadata.namespace ?? "");
  }
  triggers.proxyKeys();
  triggers.sharedCas();
}

/** What says which object an object or a change is about. */
interface Named {
  readonly namespace?: string | undefined;
  readonly name: string;
}

/** A Connector with a hash in the place of its annotations, of which only a change matters. */
function keptOfConnector(object: KubeObject): KubeObject {
  const {
    annotations = {},
    labels: _,
    ...metadata
  } = withoutManagedFields(object).metadata as KubeObject["metadata"] & {
    readonly annotations?: object;
    readonly labels?: unknown;
  };
  const annotationsHash = hash("sha256", JSON.stringify(annotations), "base64");
  return { ...object, metadata, annotationsHash } as KubeObject;
}

const refOf = ({ namespace = "", name }: Named): ConnectorRef => ({ namespace, name });

/**
 * What differs after each change that triggers a reconciliation. Annotations count too: people change one to have a
 * Connector and its Secrets reconciled now. So does another controller that begins to write the status.
 */
const versionOf = (object: KubeObject): string => {
  const annotations = String(property(object, "annotationsHash"));
  const otherManager = otherStatusManager(object) ?? "";
  return `${object.metadata.uid}/${generationOf(object)}/${otherManager}/${annotations}`;
};
