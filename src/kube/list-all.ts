import { otherStatusManager } from "../connector/connector.ts";
import { property } from "../connector/document.ts";
import { Unavailable } from "../connector/platform.ts";
import type { ApiClient } from "./api-client.ts";
import type { KubeObject } from "./object-store.ts";

/** All objects of a collection, at one version of it. */
export interface ObjectList<T> {
  readonly items: readonly T[];
  /** The version that a watch of the collection goes on from. */
  readonly resourceVersion: string;
}

/** Objects in one response: a large list comes in pages. */
const pageSize = "500";

/**
 * Reads all objects of a collection, page by page.
 * @param path the collection: `/api/v1/namespaces/team-a/secrets`
 * @param query `labelSelector`, `fieldSelector`
 * @throws what `ApiClient.request` throws
 */
export async function listAll<T extends KubeObject>(
  client: Pick<ApiClient, "request">,
  path: string,
  query: Readonly<Record<string, string>> = {},
): Promise<ObjectList<T>> {
  const items: T[] = [];
  let next: Readonly<Record<string, string>> = {};
  for (;;) {
    const page = await client.request({ path, query: { ...query, limit: pageSize, ...next } });
    const found = property(page, "items");
    if (!Array.isArray(found))
      throw new Unavailable(`the API server's response to ${path} is not a list`);
    items.push(...found.map((item) => withoutManagedFields(item as T)));
    const metadata = property(page, "metadata");
    const token = property(metadata, "continue");
    if (typeof token !== "string" || token === "") {
      return { items, resourceVersion: String(property(metadata, "resourceVersion")) };
    }
    next = { continue: token };
  }
}

/**
 * An object without its managedFields, which are often the larger part of it. All that is read of them stays: who else
 * writes the object's status.
 */
export function withoutManagedFields<T extends KubeObject>(object: T): T {
  const { managedFields: _, ...metadata } = object.metadata as { managedFields?: unknown };
  const manager = otherStatusManager(object);
  if (manager === undefined) return { ...object, metadata };
  return {
    ...object,
    metadata: { ...metadata, managedFields: [{ manager, subresource: "status" }] },
  };
}
