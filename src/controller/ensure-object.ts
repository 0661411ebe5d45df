import type { ApiClient } from "../kube/api-client.ts";
import { hasStatus } from "../kube/api-error.ts";
import type { KubeObject } from "../kube/object-store.ts";

export interface EnsureOptions {
  readonly client: Pick<ApiClient, "request">;
  /** `/api/v1/namespaces/team-a/services` */
  readonly collection: string;
  readonly wanted: DesiredObject;
  /** The object as it was last seen, undefined where none was. */
  readonly seen: KubeObject | undefined;
  /** Whether an object of that name is ours to change. */
  readonly isOurs: (object: KubeObject) => boolean;
}

/** What is there now, and whether it is ours, and so as it was wanted. */
export interface Ensured {
  readonly ours: boolean;
  readonly object: KubeObject;
}

/**
 * Makes an object what it should be, and never touches a foreign one of its name: it is created by a
 * request that can't overwrite, and changed by server-side apply that names the uid which was looked
 * at. Nothing is asked where it already is as it should be.
 * @throws as ApiClient.request: 409 where it has just been replaced
 */
export async function ensureObject(options: EnsureOptions): Promise<Ensured> {
  const { client, collection, wanted, isOurs } = options;
  const { name } = wanted.metadata;
  const path = `${collection}/${name}`;
  const object = options.seen ?? (await create(client, collection, wanted));
  if (!isOurs(object)) return { ours: false, object };
  // Objects in lists don't say of which kind they are.
  const { apiVersion: _, kind: __, ...fields } = wanted;
  if (isAsWanted(object, fields)) return { ours: true, object };
  const body = { ...wanted, metadata: { ...wanted.metadata, uid: object.metadata.uid } };
  return { ours: true, object: await applyObject(client, path, body) };
}

/** @returns the new object, or the one that is there already */
async function create(
  client: Pick<ApiClient, "request">,
  collection: string,
  wanted: DesiredObject,
): Promise<KubeObject> {
  try {
    const query = { fieldManager };
    const created = await client.request({ method: "POST", path: collection, query, body: wanted });
    return created as KubeObject;
  } catch (error) {
    if (!hasStatus(error, 409)) throw error;
    const path = `${collection}/${wanted.metadata.name}`;
    return (await client.request({ path })) as KubeObject;
  }
}

/** Server-side apply, as the owner of these fields. @throws as ApiClient.request */
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

/** An object of the API as we want it to be: only the fields that we have an opinion on. */
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

/** Whose fields these are, in an object's managedFields. */
export const fieldManager = "oci-connector";

const managedByLabel = "app.kubernetes.io/managed-by";

export const managedLabels: Readonly<Record<string, string>> = { [managedByLabel]: fieldManager };

export const managedSelector: string = `${managedByLabel}=${fieldManager}`;

/** Whether an object already is as a manifest wants it. What the manifest leaves open may be anything. */
export function isAsWanted(found: unknown, wanted: unknown): boolean {
  if (Array.isArray(wanted)) {
    return (
      Array.isArray(found) &&
      found.length === wanted.length &&
      wanted.every((item, index) => isAsWanted(found[index], item))
    );
  }
  if (typeof wanted !== "object" || wanted === null) return found === wanted;
  if (typeof found !== "object" || found === null) return false;
  const fields = found as Readonly<Record<string, unknown>>;
  return Object.entries(wanted).every(([key, value]) => isAsWanted(fields[key], value));
}
