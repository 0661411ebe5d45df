import { fieldManager } from "../connector/connector.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { hasStatus } from "../kube/api-error.ts";
import type { KubeObject } from "../kube/object-store.ts";

/** An object to make what it should be. */
export interface EnsureOptions {
  readonly client: Pick<ApiClient, "request">;
  /** The path of its collection: `/api/v1/namespaces/team-a/services`. */
  readonly collection: string;
  readonly desired: DesiredObject;
  /** The object as a cache has it; undefined where it has none. */
  readonly cached: KubeObject | undefined;
  /** Whether an object of that name may be changed, since it is not somebody else's. */
  readonly isOurs: (object: KubeObject) => boolean;
}

/** The object that is there now. */
export interface Ensured {
  /** Whether it is ours, and so as it is desired; a foreign object stays as it is. */
  readonly isOurs: boolean;
  readonly object: KubeObject;
}

/**
 * Makes an object what it should be, and never touches a foreign one of its name: it is created by a request that can't
 * overwrite, and changed by server-side apply with the uid of the object that was checked. Nothing is sent where the
 * cached object already is as desired.
 * @throws what `ApiClient.request` throws: ApiError 409 where the object has just been replaced
 */
export async function ensureObject(options: EnsureOptions): Promise<Ensured> {
  const { client, collection, desired, isOurs } = options;
  const { name } = desired.metadata;
  const path = `${collection}/${name}`;
  const object = options.cached ?? (await create(client, collection, desired));
  if (!isOurs(object)) return { isOurs: false, object };
  // Objects in lists have neither apiVersion nor kind.
  const { apiVersion: _, kind: __, ...fields } = desired;
  if (matchesDesired(object, fields)) return { isOurs: true, object };
  const body = { ...desired, metadata: { ...desired.metadata, uid: object.metadata.uid } };
  return { isOurs: true, object: await applyObject(client, path, body) };
}

/** Creates an object. @returns the new object, or the one of that name that is there already */
async function create(
  client: Pick<ApiClient, "request">,
  collection: string,
  desired: DesiredObject,
): Promise<KubeObject> {
  try {
    const query = { fieldManager };
    const created = await client.request({
      method: "POST",
      path: collection,
      query,
      body: desired,
    });
    return created as KubeObject;
  } catch (error) {
    if (!hasStatus(error, 409)) throw error;
    const path = `${collection}/${desired.metadata.name}`;
    return (await client.request({ path })) as KubeObject;
  }
}

/**
 * Applies an object as the owner of its fields: https://kubernetes.io/docs/reference/using-api/server-side-apply/
 * @returns the object as it is now
 * @throws what `ApiClient.request` throws
 */
export async function applyObject(
  client: Pick<ApiClient, "request">,
  path: string,
  body: object,
): Promise<KubeObject> {
  const query = { fieldManager, force: "true" };
  const contentType = "application/apply-patch+yaml"; // JSON is YAML, too
  const applied = await client.request({ method: "PATCH", path, query, contentType, body });
  return applied as KubeObject;
}

/** A desired object of the API. It has only the fields that we own. */
export interface DesiredObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly ownerReferences?: readonly object[];
  };
  readonly [field: string]: unknown;
}

const managedByLabel = "app.kubernetes.io/managed-by";

/** The labels of all objects that the controller makes. */
export const managedLabels: Readonly<Record<string, string>> = { [managedByLabel]: fieldManager };

/** The label selector for all objects that the controller makes. */
export const managedSelector: string = `${managedByLabel}=${fieldManager}`;

/**
 * Whether an object has every field that is desired. Fields that are not desired may have any value; lists have to be
 * equal.
 */
export function matchesDesired(found: unknown, desired: unknown): boolean {
  if (Array.isArray(desired)) {
    return (
      Array.isArray(found) &&
      found.length === desired.length &&
      desired.every((item, index) => matchesDesired(found[index], item))
    );
  }
  if (typeof desired !== "object" || desired === null) return found === desired;
  if (typeof found !== "object" || found === null) return false;
  const fields = found as Readonly<Record<string, unknown>>;
  return Object.entries(desired).every(([key, value]) => matchesDesired(fields[key], value));
}
