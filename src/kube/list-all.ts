import { property } from "../connector/document.ts";
import { Unavailable } from "../connector/platform.ts";
import type { ApiClient } from "./api-client.ts";
import type { KubeObject } from "./object-store.ts";

export interface ListedObjects<T> {
  readonly items: readonly T[];
  /** What a watch goes on from. */
  readonly resourceVersion: string;
}

/** Objects in one answer, so that a large list does not come as a whole. */
const pageSize = "500";

/** All objects of a collection. @throws as ApiClient.request */
export async function listAll<T extends KubeObject>(
  client: Pick<ApiClient, "request">,
  path: string,
  query: Readonly<Record<string, string>> = {},
): Promise<ListedObjects<T>> {
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

/** They are often the larger part of an object, and nobody here reads them. */
export function withoutManagedFields<T extends KubeObject>(object: T): T {
  const { managedFields: _, ...metadata } = object.metadata as { managedFields?: unknown };
  return { ...object, metadata };
}
