import type { ApiClient } from "../kube/api-client.ts";
import { ApiError, hasStatus } from "../kube/api-error.ts";
import { listAll } from "../kube/list-all.ts";
import { type Finding, notChecked } from "./report.ts";

/** What was observed of something in the cluster with the rights of whoever asks. */
export type Observed<T = unknown> =
  | { readonly state: "found"; readonly value: T }
  | { readonly state: "missing" }
  /** It could not be read, so it may exist and be right. `why` is a sentence. */
  | { readonly state: "unknown"; readonly why: string };

/** Reads objects of the cluster. It never rejects: what can't be read is `unknown`. */
export interface ClusterReader {
  /** Reads one object. @param path `/api/v1/namespaces/team-a/services/c-harbor` */
  get(path: string): Promise<Observed>;
  /** Reads all objects of a collection. @param query `labelSelector`, `fieldSelector` */
  list(
    path: string,
    query?: Readonly<Record<string, string>>,
  ): Promise<Observed<readonly unknown[]>>;
}

/** Creates a reader of the cluster. */
export function createClusterReader(client: Pick<ApiClient, "request">): ClusterReader {
  return {
    get: (path) => observe(() => client.request({ path })),
    list: (path, query = {}) => observe(async () => (await listAll(client, path, { query })).items),
  };
}

async function observe<T>(read: () => Promise<T>): Promise<Observed<T>> {
  try {
    return { state: "found", value: await read() };
  } catch (error) {
    if (hasStatus(error, 404)) return { state: "missing" };
    const message = error instanceof Error ? error.message : String(error);
    const isForbidden = error instanceof ApiError && error.status === 403;
    return { state: "unknown", why: isForbidden ? `not allowed to read it: ${message}` : message };
  }
}

/**
 * The finding about something that was observed.
 * @param subject the finding's subject
 * @param findings how the finding is made: `missing` where it does not exist, `found` where it does
 */
export function findingFor<T>(
  subject: string,
  observed: Observed<T>,
  { missing, found }: { readonly missing: () => Finding; readonly found: (value: T) => Finding },
): Finding {
  if (observed.state === "unknown") return notChecked(subject, observed.why);
  return observed.state === "missing" ? missing() : found(observed.value);
}
