import type { ApiClient } from "../kube/api-client.ts";
import { ApiError, hasStatus } from "../kube/api-error.ts";
import { listAll } from "../kube/list-all.ts";
import { type Finding, notChecked } from "./report.ts";

/** What whoever asks can know of something in the cluster. */
export type Seen<T = unknown> =
  | { readonly state: "found"; readonly value: T }
  | { readonly state: "missing" }
  /** It may be there, and be right. */
  | { readonly state: "unseen"; readonly why: string };

/** Looks at the cluster. It never fails. */
export interface ClusterView {
  /** One object, by its path. */
  get(path: string): Promise<Seen>;
  /** All objects of a collection. */
  list(path: string, query?: Readonly<Record<string, string>>): Promise<Seen<readonly unknown[]>>;
}

export function clusterView(client: Pick<ApiClient, "request">): ClusterView {
  return {
    get: (path) => seen(() => client.request({ path })),
    list: (path, query) => seen(async () => (await listAll(client, path, query)).items),
  };
}

async function seen<T>(ask: () => Promise<T>): Promise<Seen<T>> {
  try {
    return { state: "found", value: await ask() };
  } catch (error) {
    if (hasStatus(error, 404)) return { state: "missing" };
    const message = error instanceof Error ? error.message : String(error);
    const isForbidden = error instanceof ApiError && error.status === 403;
    return { state: "unseen", why: isForbidden ? `not allowed to read it: ${message}` : message };
  }
}

/** The finding about something that was looked at. */
export function judge<T>(
  subject: string,
  seen: Seen<T>,
  { missing, found }: { readonly missing: () => Finding; readonly found: (value: T) => Finding },
): Finding {
  if (seen.state === "unseen") return notChecked(subject, seen.why);
  return seen.state === "missing" ? missing() : found(seen.value);
}
