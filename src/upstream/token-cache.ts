import { createHash } from "node:crypto";
import { SharedCall, settledOrAborted } from "../concurrency.ts";
import { LoginHolds, type SentLogin } from "./login-holds.ts";
import { SharedCache } from "./shared-cache.ts";
import { fetchToken, judgeTokenLogin, type TokenRequest, tokenRefusal } from "./token-client.ts";
import { isRefusal } from "./upstream-error.ts";

/** Keeps registry tokens while they are good, and fetches new ones. */
export interface TokenCache {
  /**
   * Finds a token that is good for some time yet, or fetches one.
   * @param owner what may share a token: connector, address and credential
   * @param onOutcome is called once, with what came of it
   * @param signal of whoever waits; a fetch ends when the last of them has gone
   * @throws UpstreamError, or the signal's reason
   */
  token(
    owner: string,
    request: TokenRequest,
    onOutcome?: (outcome: TokenOutcome) => void,
    signal?: AbortSignal,
  ): Promise<string>;
  /** Whether there is a token that is good for some time yet. */
  has(owner: string, request: TokenKeyParts): boolean;
  /** Forgets a token that the registry has refused, unless a newer one took its place. */
  drop(owner: string, request: TokenKeyParts, token: string): void;
  /**
   * Forgets a token that the registry knows and denied something to (403): a right may be newer than the token. No
   * token takes the place of a denied one more than once in 10 seconds, since most denials are meant.
   * @returns whether `token` is to have another one
   */
  dropDenied(owner: string, request: TokenKeyParts, token: string): boolean;
}

/** Where a token came from, or why there is none: `cached` counts those, too, that wait for a fetch that another has begun. */
export type TokenOutcome = "cached" | "fetched" | "refused" | "failed";

/** What the token of an owner depends on. */
export type TokenKeyParts = Pick<TokenRequest, "realm" | "service" | "scopes">;

interface CachedToken {
  readonly value: string;
  /** When a new one is fetched, in milliseconds of the cache's clock. */
  readonly renewAt: number;
  /** Until when a denial does not make it be replaced, in milliseconds of the cache's clock. */
  readonly keptDespiteDenialUntil: number;
}

/** A token is renewed when this share of its life is over: the request that starts now has to be answered with it. */
const usedShare = 0.85;
/** A denied token is replaced once in so long. */
const deniedForMs = 10_000;
/** A longer token is used, and not kept. */
const maxKeptTokenBytes = 16 * 1024;
/** Tokens have some 2 KiB, so this is for a thousand repositories. */
const maxTokenBytesPerOwner = 2 * 1024 * 1024;
const maxTokenBytes = 32 * 1024 * 1024;

/**
 * Makes a cache of registry tokens by owner, realm, service and scopes. Many requests that want the same token cause one
 * fetch. What is kept is bounded by bytes, in all and for each owner.
 * @param now milliseconds since 1970
 */
export function createTokenCache(now: () => number): TokenCache {
  // The times stand in the entries, and not in lru-cache's `ttl`, since they go by the clock that is passed in.
  const tokens = new SharedCache<CachedToken>({
    maxBytes: maxTokenBytes,
    maxBytesPerOwner: maxTokenBytesPerOwner,
    sizeBytes: ({ value }) => value.length,
  });
  const holds = new LoginHolds(now);
  // A plain Map, since no fetch that is under way may be evicted: the next request would fetch the same token again. It
  // holds no more entries than there are requests that wait.
  const fetches = new Map<string, SharedCall<string>>();

  const keep = (owner: string, key: string, token: CachedToken): void => {
    if (token.value.length > maxKeptTokenBytes) tokens.delete(owner, key);
    else tokens.set(owner, key, token);
  };
  const fetchInto = async (
    owner: string,
    key: string,
    request: TokenRequest,
    signal: AbortSignal,
  ): Promise<string> => {
    const login = loginOf(owner, key, request);
    await holds.admit(login, signal);
    const startedAt = now(); // a token's life may have begun before the response came
    try {
      const { value, lifetimeSeconds } = await fetchToken(request, signal);
      holds.accepted(login);
      const renewAt = startedAt + lifetimeSeconds * 1000 * usedShare;
      const keptDespiteDenialUntil = tokens.get(owner, key)?.keptDespiteDenialUntil ?? 0;
      keep(owner, key, { value, renewAt, keptDespiteDenialUntil });
      return value;
    } catch (error) {
      if (!isRefusal(error)) {
        holds.undecided(login);
        throw error;
      }
      const ifUnknown = error.fault === "AuthenticationFailed" ? "account" : "purpose";
      await settledOrAborted(holds.refused(login, error, ifUnknown), signal);
      throw holds.heldBy(login) ?? error;
    }
  };
  const startFetch = (
    owner: string,
    key: string,
    request: TokenRequest,
    onOutcome: (outcome: TokenOutcome) => void,
  ): SharedCall<string> => {
    const started = new SharedCall((signal) => fetchInto(owner, key, request, signal));
    fetches.set(owner + key, started);
    const end = (outcome: TokenOutcome): void => {
      if (fetches.get(owner + key) === started) fetches.delete(owner + key);
      onOutcome(outcome);
    };
    started.outcome.then(
      () => end("fetched"),
      (error: unknown) => end(isRefusal(error) ? "refused" : "failed"),
    );
    return started;
  };
  const freshToken = (owner: string, key: string): string | undefined => {
    const cached = tokens.get(owner, key);
    return cached !== undefined && cached.renewAt > now() ? cached.value : undefined;
  };
  return {
    async token(owner, request, onOutcome = () => undefined, signal = undefined) {
      const key = tokenKey(request);
      const underWay = fetches.get(owner + key);
      if (underWay !== undefined && !underWay.isAbandoned) {
        onOutcome("cached");
        return await underWay.wait(signal);
      }
      const cached = freshToken(owner, key);
      if (cached !== undefined) {
        onOutcome("cached");
        return cached;
      }
      const held = holds.heldBy(loginOf(owner, key, request));
      if (held !== undefined) {
        onOutcome("refused");
        throw held;
      }
      return await startFetch(owner, key, request, onOutcome).wait(signal);
    },
    has: (owner, request) => freshToken(owner, tokenKey(request)) !== undefined,
    drop(owner, request, token) {
      const key = tokenKey(request);
      if (tokens.get(owner, key)?.value === token) tokens.delete(owner, key);
    },
    dropDenied(owner, request, token) {
      const key = tokenKey(request);
      const cached = tokens.get(owner, key);
      if (cached === undefined) return false; // one that is not kept was fetched for this request
      if (cached.value !== token || cached.renewAt <= now()) return true;
      if (cached.keptDespiteDenialUntil > now()) return false;
      const keptDespiteDenialUntil = now() + deniedForMs;
      tokens.set(owner, key, { ...cached, renewAt: 0, keptDespiteDenialUntil });
      return true;
    },
  };
}

/** Of one length, whatever the registry says: realm and service are its words. */
const hashed = (parts: readonly string[]): string =>
  createHash("sha256").update(parts.join("\n")).digest("base64");

const tokenKey = ({ realm, service, scopes }: TokenKeyParts): string =>
  hashed([realm.href, service ?? "", ...scopes.toSorted()]);

/** The login by which a token is asked for. Each service of a token server may have accounts of its own. */
function loginOf(owner: string, key: string, request: TokenRequest): SentLogin {
  const { realm, service, credential, scopes } = request;
  return {
    owner,
    server: hashed([realm.href, service ?? ""]),
    purpose: key,
    resource: scopes.join(" "),
    isAnonymous: credential === undefined,
    isJudgedFirst: false,
    judge: () => judgeTokenLogin(request),
    refusal: () => tokenRefusal(request, 401),
  };
}
