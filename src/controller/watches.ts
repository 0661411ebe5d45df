import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import { caConfigMapName, keysSecretName } from "../connector/proxy-keys.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { connectorsPath } from "../kube/find-connector.ts";
import type { KubeObject } from "../kube/object-store.ts";
import { sharedCaLabel } from "../kube/read-upstream-secrets.ts";
import { type CacheTiming, createWatchedCache, type WatchedCache } from "../kube/watched-cache.ts";
import type { Log } from "../log.ts";
import { connectorOfService } from "./connector-service.ts";
import { generationOf, isObserved } from "./connector-status.ts";
import { managedSelector } from "./ensure-object.ts";
import { proxyRoleName } from "./proxy-access.ts";

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
    createWatchedCache({ ...rest, timing, path, query });
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

/** Has something looked after, within so many milliseconds. */
export interface Triggers {
  connector(ref: ConnectorRef, delayMs?: number): void;
  /** What the proxy may read in a namespace. */
  namespace(name: string): void;
  proxyKeys(): void;
}

/** What need not be done at once is spread over so many milliseconds. */
const spreadMs = 30_000;

/**
 * Has everything looked after that is there, and from then on whatever changes. A Connector's status
 * is no reason: two controllers that don't see a registry alike would answer each other for ever.
 */
export function watchTriggers(watches: Watches, triggers: Triggers, random: () => number): void {
  const { connectors, services, roles, roleBindings, sharedCas, proxyKeys, proxyCa } = watches;
  const seen = new Map<string, string>();

  const all = (delay: (object: KubeObject) => number): void => {
    for (const object of connectors.list()) {
      seen.set(showRef(refOf(object.metadata)), versionOf(object));
      triggers.connector(refOf(object.metadata), delay(object));
    }
  };
  const later = (): number => random() * spreadMs;

  connectors.onChange(({ object, ...change }) => {
    const ref = refOf(change);
    const version = object === undefined ? undefined : versionOf(object);
    if (seen.get(showRef(ref)) === version) return;
    triggers.connector(ref);
    if (version !== undefined) {
      seen.set(showRef(ref), version);
      return;
    }
    seen.delete(showRef(ref));
    triggers.namespace(ref.namespace); // its Secrets are nobody's business any more
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
  sharedCas.onChange(() => all(later));
  for (const cache of [proxyKeys, proxyCa]) cache.onChange(triggers.proxyKeys);

  all((object) => (isObserved(object) ? later() : 0));
  for (const { metadata } of [roles, roleBindings].flatMap((cache) => cache.list())) {
    triggers.namespace(metadata.namespace ?? "");
  }
  triggers.proxyKeys();
}

interface Named {
  readonly namespace?: string | undefined;
  readonly name: string;
}

const refOf = ({ namespace = "", name }: Named): ConnectorRef => ({ namespace, name });

/** Annotations count, too: to change one is how people have a Connector, and its Secrets, looked at now. */
const versionOf = (object: KubeObject): string => {
  const annotations = JSON.stringify(property(object.metadata, "annotations") ?? {});
  return `${object.metadata.uid}/${generationOf(object)}/${annotations}`;
};
