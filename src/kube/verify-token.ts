import { hash } from "node:crypto";
import { LRUCache } from "lru-cache";
import { parseJson, property } from "../connector/document.ts";
import type { Identity, Result, VerifyToken } from "../connector/platform.ts";
import { show } from "../connector/problem.ts";
import type { ApiClient } from "./api-client.ts";
import { hasStatus, refusedAsUnavailable } from "./api-error.ts";
import { createLookupCache, type LookupResult, type OnLookup } from "./lookup-cache.ts";

export interface TokenReviewOptions {
  readonly client: Pick<ApiClient, "request">;
  /** Whom tokens have to be made for: that of the CSIDriver's tokenRequests. */
  readonly audience: string;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Is called for each value with where it came from. */
  readonly onLookup?: OnLookup;
}

/** So soon a token that was taken back, or whose Pod is gone, is refused. */
const positiveMs = 60_000;
const negativeMs = 5_000;
const maxEntries = 10_000;

const advice = "read the volume's files again, since the kubelet renews the token in them";

/**
 * Asks the API server who holds a token. While it is away, those whom it knew before are still known,
 * until their tokens expire. Tokens are kept as their hashes only.
 */
export function reviewTokens(options: TokenReviewOptions): VerifyToken {
  const { client, audience, now, onLookup } = options;
  const answers = createLookupCache<Result<Identity>>({ maxEntries, now, onLookup });
  return async (token) => {
    const claims = readClaims(token);
    // Whatever else people type as a password is not for the API server, nor for its audit log.
    if (claims === undefined) return refuse("this is not the token of a ServiceAccount");
    if (!claims.audiences.includes(audience)) {
      const found = claims.audiences.map(show).join(", ") || "nobody";
      return refuse(`the token is for ${found}, but must be for ${show(audience)}`);
    }
    const restMs = Math.max(0, (claims.expiresAt ?? 0) - now());
    const key = hash("sha256", token, "base64");
    return answers.get(key, async (): Promise<LookupResult<Result<Identity>>> => {
      const value = await review(client, audience, token);
      if (!value.ok) return { value, freshMs: negativeMs };
      return { value, freshMs: Math.min(restMs, positiveMs), usableMs: restMs };
    });
  };
}

const refuse = (reason: string): Result<Identity> => ({
  ok: false,
  reason: `${reason}; ${advice}`,
});

async function review(
  client: Pick<ApiClient, "request">,
  audience: string,
  token: string,
): Promise<Result<Identity>> {
  const body = {
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenReview",
    spec: { token, audiences: [audience] },
  };
  const path = "/apis/authentication.k8s.io/v1/tokenreviews";
  const answer = await client
    .request({ method: "POST", path, body })
    .catch(refusedAsUnavailable("tokens can't be reviewed"));
  const status = property(answer, "status");
  if (property(status, "authenticated") !== true) {
    const error = String(property(status, "error") ?? "no reason given").replaceAll(token, "…");
    return refuse(`the API server does not accept the token (${error.slice(0, 300)})`);
  }
  // One that knows no audiences says nothing of them, and would take any token.
  const audiences = property(status, "audiences");
  if (!Array.isArray(audiences) || !audiences.includes(audience)) {
    return refuse(`the API server does not say that the token is for ${show(audience)}`);
  }
  return { ok: true, value: identityOf(property(status, "user")) };
}

function identityOf(user: unknown): Identity {
  const name = String(property(user, "username"));
  const groups = property(user, "groups");
  const extra = (key: string): string | undefined => {
    const values = property(property(user, "extra"), `authentication.kubernetes.io/${key}`);
    return Array.isArray(values) && typeof values[0] === "string" ? values[0] : undefined;
  };
  const podName = extra("pod-name");
  const podUid = extra("pod-uid");
  const namespace = /^system:serviceaccount:([^:]+):/.exec(name)?.[1];
  return {
    user: name,
    groups: Array.isArray(groups) ? groups.map(String) : [],
    subject: podUid === undefined ? name : `${name}/${podUid}`,
    ...(podName === undefined || namespace === undefined
      ? {}
      : { pod: { namespace, name: podName } }),
  };
}

/** What a token says of itself. Nothing of it is proved. */
export interface TokenClaims {
  readonly audiences: readonly string[];
  /** Milliseconds since the epoch; undefined for a token that does not say. */
  readonly expiresAt: number | undefined;
}

/** RFC 7515, section 3.1. */
const compactForm = /^[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+$/;

/** The claims of a JWT; undefined for anything else. */
export function readClaims(token: string): TokenClaims | undefined {
  const payload = compactForm.exec(token)?.[1];
  const claims =
    payload === undefined
      ? undefined
      : parseJson(Buffer.from(payload, "base64url").toString("utf8"));
  if (claims === undefined) return undefined;
  const audience = property(claims, "aud");
  const audiences = Array.isArray(audience) ? audience : [audience];
  const expiry = property(claims, "exp");
  return {
    audiences: audiences.filter((one) => typeof one === "string"),
    expiresAt: typeof expiry === "number" ? expiry * 1000 : undefined,
  };
}

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

const maxPods = 10_000;

/**
 * Still takes a token that has expired, for programs that read it once (buildkitd, Go's clients of a proxy): where this
 * process has seen it alive, where it is bound to a Pod, and while that Pod is there and runs. The API server
 * verifies no token that has expired, so one that was never seen here is refused as ever.
 */
export function outliveTokens({ client, verify, grace, now }: OutliveOptions): VerifyToken {
  if (grace === 0) return verify;
  const seen = new LRUCache<string, Identity>({ max: maxPods });
  const pods = createLookupCache<boolean>({ maxEntries: maxPods, now });
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
