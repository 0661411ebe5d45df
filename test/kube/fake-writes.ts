import { isDeepStrictEqual } from "node:util";
import type { KubeObject } from "../../src/kube/object-store.ts";

/** A request that changes one object. */
export interface FakeWrite {
  readonly method: string;
  readonly query: URLSearchParams;
  readonly body: unknown;
  readonly subresource: string | undefined;
}

/** What comes of it: the object as it is then, undefined where it is gone, or the status of a refusal. */
export type Written = { readonly object: KubeObject | undefined } | { readonly refused: 404 | 409 };

type Fields = Readonly<Record<string, unknown>>;

/** @param before undefined where there is none of that name */
export function written(write: FakeWrite, before: KubeObject | undefined): Written {
  switch (write.method) {
    case "POST":
      return before === undefined ? { object: write.body as KubeObject } : { refused: 409 };
    case "DELETE":
      return deleted(write, before);
    default:
      return before === undefined ? applied(write) : patched(write, before);
  }
}

function deleted({ body }: FakeWrite, before: KubeObject | undefined): Written {
  if (before === undefined) return { refused: 404 };
  const { preconditions } = (body ?? {}) as { preconditions?: { uid?: string } };
  const isOther = preconditions?.uid !== undefined && preconditions.uid !== before.metadata.uid;
  return isOther ? { refused: 409 } : { object: undefined };
}

/** Server-side apply makes what is not there, unless a certain one was meant. */
function applied({ body, query, subresource }: FakeWrite): Written {
  if (!query.has("force") || subresource !== undefined) return { refused: 404 };
  const { uid, resourceVersion } = (body as KubeObject).metadata;
  const isCertain = (uid ?? resourceVersion) !== undefined;
  return isCertain ? { refused: 409 } : { object: body as KubeObject };
}

/** Applies and merge patches as far as the controller uses them: lists are replaced, and so is a status, which has one writer. */
function patched({ body, subresource }: FakeWrite, before: KubeObject): Written {
  const { metadata = {}, status, ...others } = body as Fields & { metadata?: Fields };
  const isOther = (key: "uid" | "resourceVersion"): boolean =>
    metadata[key] !== undefined && metadata[key] !== before.metadata[key];
  if (isOther("uid") || isOther("resourceVersion")) return { refused: 409 };
  const fields = subresource === "status" ? {} : { ...others, metadata };
  const object = merge(before, fields) as KubeObject;
  return { object: subresource === "status" ? ({ ...object, status } as KubeObject) : object };
}

/** RFC 7396: null takes a field away. */
function merge(target: unknown, patch: unknown): unknown {
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
  const isMap = typeof target === "object" && target !== null && !Array.isArray(target);
  const merged: Record<string, unknown> = isMap ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = merge(merged[key], value);
  }
  return merged;
}

/** It counts the changes of what is wanted, not those of what is. */
export function generationAfter(before: KubeObject | undefined, after: object): number {
  if (before === undefined) return 1;
  const { spec, metadata } = before as unknown as Fields & { metadata: { generation?: number } };
  const isSame = isDeepStrictEqual(spec, (after as Fields).spec);
  return (metadata.generation ?? 1) + (isSame ? 0 : 1);
}
