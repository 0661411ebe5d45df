import { property } from "../connector/document.ts";
import { Unavailable } from "../connector/platform.ts";
import type { ApiClient } from "./api-client.ts";
import { ResponseTooLarge } from "./api-error.ts";
import { createOversizedObject, operatorBounds, withoutManagedFields } from "./object-bounds.ts";
import type { KubeObject } from "./object-store.ts";

/** All objects of a collection, at one version of it. */
export interface ObjectList<T> {
  readonly items: readonly T[];
  /** The version that a watch of the collection goes on from. */
  readonly resourceVersion: string;
}

/** What of a collection to list, and what to keep of it. */
export interface ListOptions<T> {
  /** `labelSelector`, `fieldSelector`. */
  readonly query?: Readonly<Record<string, string>>;
  /** Is called with each object as it comes; its result is what is listed, and nothing where it is undefined. */
  readonly take?: (item: T) => T | undefined;
}

/** Objects in one response: a large list comes in pages. */
const maxPageSize = 500;
/** After so many pages in a row that were not too large, larger ones are tried. */
const pagesBeforeGrowth = 4;

/**
 * Reads all objects of a collection, page by page. Pages that are too large for the client become smaller, and of a
 * single object that is too large only the metadata are read.
 * @param path the collection: `/api/v1/namespaces/team-a/secrets`
 * @throws what `ApiClient.request` throws
 */
export async function listAll<T extends KubeObject>(
  client: Pick<ApiClient, "request">,
  path: string,
  { query = {}, take = withoutManagedFields }: ListOptions<T> = {},
): Promise<ObjectList<T>> {
  const items: T[] = [];
  let next: Readonly<Record<string, string>> = {};
  let pageSize = maxPageSize;
  let pagesInARow = 0;
  for (;;) {
    const page = await readPage(client, path, { ...query, limit: `${pageSize}`, ...next });
    if (page === undefined) {
      pageSize = Math.max(1, Math.floor(pageSize / 2));
      pagesInARow = 0;
      continue;
    }
    const found = property(page, "items");
    if (!Array.isArray(found))
      throw new Unavailable(`the API server's response to ${path} is not a list`);
    items.push(...found.flatMap((item) => take(item as T) ?? []));
    const metadata = property(page, "metadata");
    const token = property(metadata, "continue");
    if (typeof token !== "string" || token === "") {
      return { items, resourceVersion: String(property(metadata, "resourceVersion")) };
    }
    next = { continue: token };
    pagesInARow += 1;
    if (pagesInARow % pagesBeforeGrowth === 0) pageSize = Math.min(maxPageSize, pageSize * 2);
  }
}

/** Has the API server send no more than the metadata of objects. */
const metadataOnly = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/** @returns undefined for a page of several objects that is too large */
async function readPage(
  client: Pick<ApiClient, "request">,
  path: string,
  query: Readonly<Record<string, string>>,
): Promise<unknown> {
  try {
    return await client.request({ path, query });
  } catch (error) {
    if (!(error instanceof ResponseTooLarge)) throw error;
    if (query.limit !== "1") return undefined;
    const page = await client.request({ path, query, accept: metadataOnly });
    const items = property(page, "items");
    if (!Array.isArray(items)) return page;
    const oversized = items.map((item) =>
      createOversizedObject(item as KubeObject, undefined, operatorBounds),
    );
    return { ...(page as object), items: oversized };
  }
}
