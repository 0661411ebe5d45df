import { hash } from "node:crypto";
import { LRUCache } from "lru-cache";
import { property } from "../connector/document.ts";
import type { Identity, VerifyToken } from "../connector/platform.ts";
import type { ApiClient } from "./api-client.ts";
import { hasStatus, refusedAsUnavailable } from "./api-error.ts";
import { createLookupCache } from "./lookup-cache.ts";
import { readClaims } from "./token-claims.ts";

export interface OutliveOptions {
  readonly client: Pick<ApiClient, "request">;
  readonly verify: VerifyToken;
  /** Milliseconds for which a token is still taken after it has expired; 0 for none. */
  readonly grace: number;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

/** So soon a Pod that is gone is noticed. */
const podMs = 15_000;
const maxEntries = 10_000;

/**
 * Still takes a token that has expired, for programs that read it once (buildkitd, Go's clients of a proxy): where this
 * process has seen it alive, where it is bound to a Pod, and while that Pod is there and runs. The API server
 * verifies no token that has expired, so one that was never seen here is refused as ever.
 */
export function outliveTokens({ client, verify, grace, now }: OutliveOptions): VerifyToken {
  if (grace === 0) return verify;
  const seen = new LRUCache<string, Identity>({ max: maxEntries });
  const pods = createLookupCache<boolean>({ maxEntries, now });
  const isThere = (identity: Identity): Promise<boolean> =>
    pods.get(identity.subject, async () => ({
      value: await runs(client, identity),
      freshMs: podMs,
    }));
  return async (token) => {
    const key = hash("sha256", token, "base64");
    const expired = now() - (readClaims(token)?.expiresAt ?? Number.POSITIVE_INFINITY);
    const identity = seen.get(key);
    if (expired < 0 || identity === undefined) {
      const answer = await verify(token);
      if (answer.ok && answer.value.pod !== undefined) seen.set(key, answer.value);
      return answer;
    }
    if (expired < grace && (await isThere(identity))) {
      return { ok: true, value: { ...identity, isExpired: true } };
    }
    seen.delete(key);
    return verify(token);
  };
}

/** Whether the very Pod that a token is bound to is there, and neither ends nor has ended. */
async function runs(
  client: Pick<ApiClient, "request">,
  { user, subject, pod }: Identity,
): Promise<boolean> {
  const path = `/api/v1/namespaces/${pod?.namespace}/pods/${pod?.name}`;
  const found = await client.request({ path }).catch((error: unknown) => {
    if (hasStatus(error, 404)) return undefined;
    return refusedAsUnavailable("Pods can't be read")(error);
  });
  const metadata = property(found, "metadata");
  return (
    property(metadata, "uid") === subject.slice(user.length + 1) &&
    property(metadata, "deletionTimestamp") === undefined &&
    !["Succeeded", "Failed"].includes(String(property(property(found, "status"), "phase")))
  );
}
