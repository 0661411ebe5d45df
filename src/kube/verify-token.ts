import { hash } from "node:crypto";
import { parseJson, property } from "../connector/document.ts";
import {
  type Identity,
  type Result,
  serviceAccountNamespace,
  type TokenSender,
  type VerifyToken,
} from "../connector/platform.ts";
import { show } from "../connector/problem.ts";
import type { ApiClient } from "./api-client.ts";
import { hasStatus, refusedAsUnavailable } from "./api-error.ts";
import { type Asker, createFairQueue } from "./fair-queue.ts";
import { createLookupCache, type LookupResult, type OnLookup } from "./lookup-cache.ts";
import { createSharedStore } from "./shared-store.ts";
import { createSignatureCheck } from "./token-keys.ts";

/** What is needed to have tokens reviewed. */
export interface TokenReviewOptions {
  readonly client: Pick<ApiClient, "request">;
  /** The audience that tokens must have. */
  readonly audience: string;
  /** An audience that they must not have beside it, since it opens another entry of the proxy. */
  readonly otherAudience?: string;
  /** What is said to be done about a token that is refused; for the tokens of volumes unless given. */
  readonly advice?: string;
  /**
   * Whether logins for other servers may come in place of a token. Refusals then don't name the audiences that such a
   * login has, which are a part of it.
   */
  readonly mayBeForeign?: boolean;
  /** The time, in milliseconds since 1970. */
  readonly now: () => number;
  /** Is called for each token with where its result came from. */
  readonly onLookup?: OnLookup;
  /** Is called for each token that is not reviewed, since too many others wait. */
  readonly onReject?: () => void;
}

/** A result is used for so long: after that a token that was revoked, or whose Pod is gone, is refused. */
const positiveMs = 60_000;
const negativeMs = 5_000;
const maxEntries = 10_000;

/** The API server accepts a token for so long after its end, since clocks differ. */
const leewayMs = 60_000;
/** Reviews that run at once: of tokens that were accepted before, and of others. */
const concurrency = 4;

const volumeAdvice = "read the volume's files again, since the kubelet renews the token in them";

/**
 * What helps against what an API server says of a token: `Validate` in Kubernetes' pkg/serviceaccount/claims.go. The
 * kubelet keeps a token until 80 % of its lifetime are over, whatever becomes of the ServiceAccount.
 */
const specialAdvice: readonly (readonly [said: RegExp, advice: string])[] = [
  [
    /service account UID \(.*\) does not match/,
    "the ServiceAccount was deleted and made again after this Pod got its token: recreate the Pod",
  ],
  [
    /service account \S+ has been deleted|serviceaccounts? "[^"]*" not found/,
    "the Pod's ServiceAccount is gone: create it again, and then recreate the Pod",
  ],
  [
    /pod UID \(.*\) does not match/,
    "the token is that of an earlier Pod with this name: take it from the volume of the Pod that runs now",
  ],
];

/**
 * Creates a function that has the API server verify tokens (TokenReview). While the API server is away, tokens that it
 * has accepted before are still accepted until they expire. Tokens are kept as hashes only.
 *
 * What can be told without a review costs none: another audience, a token that has expired, and, where the API server's
 * keys can be had, a forged one. Reviews wait in two queues, one for tokens that were accepted before, whose namespaces
 * take turns, and one for all others, whose senders do.
 */
export function createTokenReviewer(options: TokenReviewOptions): VerifyToken {
  const { client, audience, advice = volumeAdvice, now, onLookup, onReject } = options;
  const refuse = (reason: string): Result<Identity> => {
    const [, special] = specialAdvice.find(([said]) => said.test(reason)) ?? [];
    return { ok: false, reason: `${reason}; ${special ?? advice}` };
  };
  const results = createLookupCache<Result<Identity>>({
    maxEntries,
    now,
    onLookup,
    ownerOf: (result) => (result.ok ? askerOf(result.value).group : ""),
  });
  const isSigned = createSignatureCheck(options);
  const queue = { what: "reviews of tokens", concurrency, onReject };
  const acceptedBefore = createFairQueue(queue);
  const unknown = createFairQueue(queue);

  async function lookUp(
    token: string,
    sender: TokenSender,
    remainingMs: number,
    known: Result<Identity> | undefined,
  ): Promise<LookupResult<Result<Identity>>> {
    const refused = { freshMs: negativeMs, isRefusal: true };
    if (!known?.ok && (await isSigned(token)) === false) {
      const value = refuse("the token is not signed with a key of this cluster's API server");
      return { ...refused, value, isUnasked: true };
    }
    const ask = async (): Promise<Result<Identity>> => {
      const reviewed = await review(client, audience, token);
      return reviewed.ok ? reviewed : refuse(reviewed.reason);
    };
    const value = known?.ok
      ? await acceptedBefore.run(askerOf(known.value), ask)
      : await unknown.run({ group: sender.address, member: sender.connection }, ask);
    if (!value.ok) return { ...refused, value };
    return { value, freshMs: Math.min(remainingMs, positiveMs), usableMs: remainingMs };
  }

  return async (token, sender = unknownSender) => {
    const claims = readClaims(token);
    // Whatever else people type as a password is not for the API server, nor for its audit log.
    if (claims === undefined) return refuse("this is not the token of a ServiceAccount");
    const wrongAudience = wrongAudienceOf(claims.audiences, options);
    if (wrongAudience !== undefined) return refuse(wrongAudience);
    const { expiresAt = 0 } = claims;
    if (claims.expiresAt !== undefined && expiresAt + leewayMs <= now()) {
      return refuse("the token has expired");
    }
    const remainingMs = Math.max(0, expiresAt - now());
    const key = hash("sha256", token, "base64");
    return results.get(key, (known) => lookUp(token, sender, remainingMs, known));
  };
}

/** What is wrong with the audiences of a token; undefined where nothing is. */
function wrongAudienceOf(
  audiences: readonly string[],
  { audience, otherAudience, mayBeForeign = false }: TokenReviewOptions,
): string | undefined {
  if (!audiences.includes(audience)) {
    const others = audiences.map(show).join(", ") || "nobody";
    const found = mayBeForeign ? "another audience" : others;
    return `the token is for ${found}, but must be for ${show(audience)}`;
  }
  if (otherAudience === undefined || !audiences.includes(otherAudience)) return undefined;
  return `the token must be for ${show(audience)} alone, and is for ${show(otherAudience)}, too`;
}

const unknownSender: TokenSender = { address: "", connection: "" };

/** Whose turn it is where somebody's token or right is reviewed: the namespace of a ServiceAccount, then its Pod. */
function askerOf({ user, subject }: Pick<Identity, "user" | "subject">): Asker {
  return { group: serviceAccountNamespace(user) ?? user, member: subject };
}

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
  const response = await client
    .request({ method: "POST", path, body })
    .catch(refusedAsUnavailable("tokens can't be reviewed"));
  const status = property(response, "status");
  if (property(status, "authenticated") !== true) {
    const error = String(property(status, "error") ?? "no reason given").replaceAll(token, "…");
    const reason = `the API server does not accept the token (${error.slice(0, 300)})`;
    return { ok: false, reason };
  }
  // An API server that does not know audiences would accept any token, and names none.
  const audiences = property(status, "audiences");
  if (!Array.isArray(audiences) || !audiences.includes(audience)) {
    const reason = `the API server does not say that the token is for ${show(audience)}`;
    return { ok: false, reason };
  }
  return { ok: true, value: readIdentity(property(status, "user")) };
}

function readIdentity(user: unknown): Identity {
  const name = String(property(user, "username"));
  const groups = property(user, "groups");
  const extra = (key: string): string | undefined => {
    const values = property(property(user, "extra"), `authentication.kubernetes.io/${key}`);
    return Array.isArray(values) && typeof values[0] === "string" ? values[0] : undefined;
  };
  const podName = extra("pod-name");
  const podUid = extra("pod-uid");
  const namespace = serviceAccountNamespace(name);
  return {
    user: name,
    groups: Array.isArray(groups) ? groups.map(String) : [],
    subject: podUid === undefined ? name : `${name}/${podUid}`,
    ...(podName === undefined || namespace === undefined
      ? {}
      : { pod: { namespace, name: podName } }),
  };
}

/** The claims of a token that nobody has verified yet. */
export interface TokenClaims {
  readonly audiences: readonly string[];
  /** In milliseconds since 1970; undefined for a token without `exp`. */
  readonly expiresAt: number | undefined;
}

/** The compact serialization of a JWS: RFC 7515, section 3.1. */
const compactForm = /^[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+$/;

/** Reads the claims of a JWT without verifying them. @returns undefined where the text is not a JWT */
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

/** What is needed to accept expired tokens. */
export interface ExpiredTokenOptions {
  readonly client: Pick<ApiClient, "request">;
  /** Verifies tokens that have not expired. */
  readonly verify: VerifyToken;
  /** For how many milliseconds after its end a token is still accepted; 0 accepts no expired token. */
  readonly graceMs: number;
  /** The time, in milliseconds since 1970. */
  readonly now: () => number;
  /** Is called for each Pod that is not looked at, since too many others wait. */
  readonly onReject?: () => void;
}

/** After so many milliseconds it is noticed that a Pod is gone. */
const podFreshMs = 15_000;

const maxTokens = 10_000;

/**
 * Creates a function that verifies tokens and also accepts expired ones, for programs that read a token once
 * (buildkitd, Go's clients of a proxy). An expired token is accepted where this process has verified it before, where
 * it is bound to a Pod, and while that Pod runs. The API server does not verify expired tokens, so one that was never
 * seen here is refused.
 */
export function createExpiredTokenVerifier({
  client,
  verify,
  graceMs,
  now,
  onReject,
}: ExpiredTokenOptions): VerifyToken {
  if (graceMs === 0) return verify;
  const verified = createSharedStore<Identity>(maxTokens);
  const queue = createFairQueue({ what: "reads of Pods", concurrency, onReject });
  const running = createLookupCache<{ readonly runs: boolean; readonly group: string }>({
    maxEntries: maxTokens,
    now,
    ownerOf: ({ group }) => group,
  });
  const podRuns = async (identity: Identity): Promise<boolean> => {
    const asker = askerOf(identity);
    const { runs } = await running.get(identity.subject, async () => {
      const runs = await queue.run(asker, () => isRunning(client, identity));
      return { value: { runs, group: asker.group }, freshMs: podFreshMs, isRefusal: !runs };
    });
    return runs;
  };
  return async (token, sender) => {
    const key = hash("sha256", token, "base64");
    const expiredMs = now() - (readClaims(token)?.expiresAt ?? Number.POSITIVE_INFINITY);
    const identity = verified.get(key);
    if (expiredMs < 0 || identity === undefined) {
      const result = await verify(token, sender);
      if (result.ok && result.value.pod !== undefined) {
        verified.set(key, result.value, askerOf(result.value).group, 1);
      }
      return result;
    }
    if (expiredMs < graceMs && (await podRuns(identity))) {
      return { ok: true, value: { ...identity, isExpired: true } };
    }
    verified.delete(key);
    return verify(token, sender);
  };
}

/** Whether the Pod that a token is bound to runs: it has the same uid, is not being deleted and has not completed. */
async function isRunning(
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
