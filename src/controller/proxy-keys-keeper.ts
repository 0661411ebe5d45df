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
import { applyObject, fieldManager, managedLabels } from "./ensure-object.ts";
import {
  keysAfter,
  type PublishedBundle,
  planRotation,
  type RotationTiming,
} from "./rotation-plan.ts";
import type { Clock } from "./work-queue.ts";

/** On the Secret: any new value asks for a rotation. */
export const rotateAnnotation = "connectors.alauda.io/rotate";
/** On the Secret: the value of that annotation which was last acted upon. */
export const rotatedAnnotation = "connectors.alauda.io/rotated";
/** On the ConfigMap: since when it says what it says. */
export const sinceAnnotation = "connectors.alauda.io/since";

export interface ProxyKeysKeeperOptions {
  readonly client: Pick<ApiClient, "request">;
  readonly installNamespace: string;
  /** Caches that hold the Secret and the ConfigMap. */
  readonly secrets: Pick<WatchedCache<KubeObject>, "get">;
  readonly configMaps: Pick<WatchedCache<KubeObject>, "get">;
  /** Makes new keys. */
  readonly makeKeys: () => Promise<Pick<ProxyKeys, "authority" | "sealKey">>;
  readonly clock: Pick<Clock, "now">;
  readonly timing: RotationTiming;
  readonly log: Log;
}

/** While nothing is to be done, the clock is looked at this often. */
const longestWaitMs = 60 * 60_000;
/** What a step has changed comes back as an event, which asks for the next one; this is for one that is lost. */
const stepTakenMs = 30_000;

/**
 * Takes the next step with the keys that all proxies share: makes them, publishes their certificates,
 * rotates them. What another replica has changed meanwhile is not overwritten.
 * @returns after how many milliseconds to look again
 * @throws as ApiClient.request: 409 where another replica was faster; Error where the Secret is damaged
 */
export type KeepProxyKeys = () => Promise<number>;

export function proxyKeysKeeper(options: ProxyKeysKeeperOptions): KeepProxyKeys {
  const { client, installNamespace: namespace, clock, log } = options;
  const secretsPath = `/api/v1/namespaces/${namespace}/secrets`;
  const secretPath = `${secretsPath}/${keysSecretName}`;
  const configMapPath = `/api/v1/namespaces/${namespace}/configmaps/${caConfigMapName}`;

  /** Of replicas that do so at once, one makes the keys for all. */
  async function create(): Promise<KubeObject> {
    const keys = { ...(await options.makeKeys()), next: undefined, previous: undefined };
    const body = {
      ...{ apiVersion: "v1", kind: "Secret", type: "Opaque" },
      metadata: { name: keysSecretName, namespace, labels: managedLabels },
      data: proxyKeysData(keys),
    };
    const query = { fieldManager };
    try {
      const made = await client.request({ method: "POST", path: secretsPath, query, body });
      log("info", "created the proxies' keys", { reference: secretPath });
      return made as KubeObject;
    } catch (error) {
      if (!hasStatus(error, 409)) throw error;
      return (await client.request({ path: secretPath })) as KubeObject;
    }
  }

  /** A merge patch can take fields away, whoever has put them there: a backup that was restored, say. */
  async function change(secret: KubeObject, keys: ProxyKeys, rotated?: string): Promise<void> {
    const nulls = Object.entries(proxyKeysData(keys)).map(([key, value]) => [key, value ?? null]);
    const { resourceVersion } = secret.metadata;
    const annotations = rotated === undefined ? {} : { [rotatedAnnotation]: rotated };
    const body = { metadata: { resourceVersion, annotations }, data: Object.fromEntries(nulls) };
    const contentType = "application/merge-patch+json";
    const query = { fieldManager };
    await client.request({ method: "PATCH", path: secretPath, query, contentType, body });
  }

  /** A cache that lags behind must not take a new certificate out of the bundle. */
  async function publish(seen: KubeObject | undefined): Promise<void> {
    const keys = readKeys(await client.request({ path: secretPath }), namespace);
    const annotations = { [sinceAnnotation]: timestamp(clock.now()) };
    const { resourceVersion } = seen?.metadata ?? {};
    const version = resourceVersion === undefined ? {} : { resourceVersion };
    const metadata = { name: caConfigMapName, namespace, labels: managedLabels, annotations };
    await applyObject(client, configMapPath, {
      ...{ apiVersion: "v1", kind: "ConfigMap", metadata: { ...metadata, ...version } },
      data: { [caConfigMapKey]: trustedBundle(keys) },
    });
  }

  return async () => {
    const secret = options.secrets.get(keysSecretName, namespace) ?? (await create());
    const keys = readKeys(secret, namespace);
    const rotate = annotationOf(secret, rotateAnnotation);
    const rotated = annotationOf(secret, rotatedAnnotation);
    const configMap = options.configMaps.get(caConfigMapName, namespace);
    const state = { keys, published: bundleIn(configMap), rotate, rotated };
    const plan = planRotation(state, options.timing, clock.now());
    if (plan.step === "wait") return Math.min(plan.until - clock.now(), longestWaitMs);
    if (plan.step === "publish") {
      await publish(configMap);
    } else {
      const isNew = plan.step === "introduce";
      const made = isNew ? await options.makeKeys() : keys;
      // What is asked for in the middle of a rotation is done after it.
      await change(secret, keysAfter(plan.step, keys, made), isNew ? rotate : rotated);
    }
    log("info", "rotation of the proxies' keys took a step", {
      reason: plan.step,
      reference: secretPath,
    });
    return stepTakenMs;
  };
}

/** Nothing is ever replaced by itself: volumes trust the authority, and uploads are bound to the key. */
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

function bundleIn(configMap: KubeObject | undefined): PublishedBundle | undefined {
  if (configMap === undefined) return undefined;
  const bundle = property(property(configMap, "data"), caConfigMapKey);
  const since = Date.parse(annotationOf(configMap, sinceAnnotation) ?? "");
  return typeof bundle !== "string" || Number.isNaN(since) ? undefined : { bundle, since };
}
