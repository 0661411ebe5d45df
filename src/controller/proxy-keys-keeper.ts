import { fieldManager } from "../connector/connector.ts";
import { property } from "../connector/document.ts";
import { describeProblems } from "../connector/problem.ts";
import {
  caConfigMapKey,
  caConfigMapName,
  keysSecretName,
  type ProxyKeys,
  parseProxyKeys,
  proxyKeysData,
  trustedBundle,
} from "../connector/proxy-keys.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { hasStatus } from "../kube/api-error.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { WatchedCache } from "../kube/watched-cache.ts";
import type { Log } from "../log.ts";
import { timestamp } from "./conditions.ts";
import { applyObject, managedLabels } from "./ensure-object.ts";
import {
  keysAfter,
  type PublishedBundle,
  planRotation,
  type RotationTiming,
} from "./rotation-plan.ts";

/** The annotation of the Secret by which a person asks for a rotation: any new value does. */
export const rotateAnnotation = "connectors.alauda.io/rotate";
/** The annotation of the Secret with the value of {@link rotateAnnotation} for which the last rotation was begun. */
export const rotatedAnnotation = "connectors.alauda.io/rotated";
/** The annotation of the ConfigMap with the time since when it has its content. */
export const sinceAnnotation = "connectors.alauda.io/since";

/** What is needed to keep the proxies' keys. */
export interface ProxyKeysKeeperOptions {
  readonly client: Pick<ApiClient, "request">;
  readonly installNamespace: string;
  /** A cache that has the Secret. */
  readonly secrets: Pick<WatchedCache<KubeObject>, "get">;
  /** A cache that has the ConfigMap. */
  readonly configMaps: Pick<WatchedCache<KubeObject>, "get">;
  /** Creates new keys. */
  readonly createKeys: () => Promise<Pick<ProxyKeys, "authority" | "sealKey">>;
  /** The time, in milliseconds since 1970. */
  readonly now: () => number;
  readonly timing: RotationTiming;
  readonly log: Log;
}

/** While no step is due, the plan is made anew this often. */
const maxWaitMs = 60 * 60_000;
/** The watch reports what a step has changed, and so triggers the next step. This is for a report that is lost. */
const recheckMs = 30_000;

/**
 * Takes the next step with the keys that all proxies share: creates them, publishes their certificates, rotates them.
 * It overwrites nothing that another replica has changed meanwhile.
 * @returns after how many milliseconds to run it again
 * @throws what `ApiClient.request` throws: ApiError 409 where another replica was faster; Error where the Secret is
 * damaged
 */
export type KeepProxyKeys = () => Promise<number>;

/** Creates the function that takes the next step with the proxies' keys. */
export function createProxyKeysKeeper(options: ProxyKeysKeeperOptions): KeepProxyKeys {
  const { client, installNamespace: namespace, now, log } = options;
  const secretsPath = `/api/v1/namespaces/${namespace}/secrets`;
  const secretPath = `${secretsPath}/${keysSecretName}`;
  const configMapPath = `/api/v1/namespaces/${namespace}/configmaps/${caConfigMapName}`;

  /** Creates the Secret with new keys. Where another replica was faster, its Secret is returned. */
  async function create(): Promise<KubeObject> {
    const keys = { ...(await options.createKeys()), next: undefined, previous: undefined };
    const body = {
      apiVersion: "v1",
      kind: "Secret",
      type: "Opaque",
      metadata: { name: keysSecretName, namespace, labels: managedLabels },
      data: proxyKeysData(keys),
    };
    const query = { fieldManager };
    try {
      const created = await client.request({ method: "POST", path: secretsPath, query, body });
      log("info", "created the proxies' keys", { reference: secretPath });
      return created as KubeObject;
    } catch (error) {
      if (!hasStatus(error, 409)) throw error;
      return (await client.request({ path: secretPath })) as KubeObject;
    }
  }

  /**
   * Replaces the keys in the Secret. A merge patch can remove fields whoever has written them: a restored backup, say.
   */
  async function change(secret: KubeObject, keys: ProxyKeys, rotated?: string): Promise<void> {
    const nulls = Object.entries(proxyKeysData(keys)).map(([key, value]) => [key, value ?? null]);
    const { resourceVersion } = secret.metadata;
    const annotations = rotated === undefined ? {} : { [rotatedAnnotation]: rotated };
    const body = { metadata: { resourceVersion, annotations }, data: Object.fromEntries(nulls) };
    const contentType = "application/merge-patch+json";
    const query = { fieldManager };
    await client.request({ method: "PATCH", path: secretPath, query, contentType, body });
  }

  /**
   * Publishes the certificates of the Secret as the API server has it: a stale cache must not remove a new one.
   * @param cached the ConfigMap
   */
  async function publish(cached: KubeObject | undefined): Promise<void> {
    const keys = readKeys(await client.request({ path: secretPath }), namespace);
    const annotations = { [sinceAnnotation]: timestamp(now()) };
    const { resourceVersion } = cached?.metadata ?? {};
    const version = resourceVersion === undefined ? {} : { resourceVersion };
    const metadata = { name: caConfigMapName, namespace, labels: managedLabels, annotations };
    await applyObject(client, configMapPath, {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { ...metadata, ...version },
      data: { [caConfigMapKey]: trustedBundle(keys) },
    });
  }

  return async () => {
    const secret = options.secrets.get(keysSecretName, namespace) ?? (await create());
    const keys = readKeys(secret, namespace);
    const rotate = annotationOf(secret, rotateAnnotation);
    const rotated = annotationOf(secret, rotatedAnnotation);
    const configMap = options.configMaps.get(caConfigMapName, namespace);
    const state = { keys, published: publishedBundle(configMap), rotate, rotated };
    const plan = planRotation(state, options.timing, now());
    if (plan.step === "wait") return Math.min(plan.until - now(), maxWaitMs);
    if (plan.step === "publish") {
      await publish(configMap);
    } else {
      const isNew = plan.step === "introduce";
      const newKeys = isNew ? await options.createKeys() : keys;
      // A rotation that is asked for in the middle of another one begins after it.
      await change(secret, keysAfter(plan.step, keys, newKeys), isNew ? rotate : rotated);
    }
    log("info", "rotation of the proxies' keys took a step", {
      reason: plan.step,
      reference: secretPath,
    });
    return recheckMs;
  };
}

/**
 * The keys in the Secret. Damaged keys are never replaced without a person: volumes trust the authority, and uploads
 * are bound to the key.
 */
function readKeys(secret: unknown, namespace: string): ProxyKeys {
  const keys = parseProxyKeys(secret);
  if (keys.ok) return keys.value;
  throw new Error(
    `Secret ${namespace}/${keysSecretName} is damaged (${describeProblems(keys.problems)}): restore it ` +
      `from a backup, or delete it so that new keys are created; running volumes trust those only after their next republish`,
  );
}

function annotationOf(object: KubeObject, name: string): string | undefined {
  const value = property(property(object.metadata, "annotations"), name);
  return typeof value === "string" ? value : undefined;
}

function publishedBundle(configMap: KubeObject | undefined): PublishedBundle | undefined {
  if (configMap === undefined) return undefined;
  const bundle = property(property(configMap, "data"), caConfigMapKey);
  const since = Date.parse(annotationOf(configMap, sinceAnnotation) ?? "");
  return typeof bundle !== "string" || Number.isNaN(since) ? undefined : { bundle, since };
}
