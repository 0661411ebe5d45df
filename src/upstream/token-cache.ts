import { LRUCache } from "lru-cache";
import { fetchToken, type TokenRequest } from "./token-client.ts";
import { UpstreamError } from "./upstream-error.ts";

/** Keeps registry tokens while they are good, and fetches new ones. */
export interface TokenCache {
  /**
   * Finds a token that is good for some time yet, or fetches one.
   * @param owner what may share a token: connector, address and credential
   * @param onOutcome is called once, with what came of it
   * @throws UpstreamError
   */
  token(
    owner: string,
    request: TokenRequest,
    onOutcome?: (outcome: TokenOutcome) => void,
  ): Promise<string>;
  /** Forgets a token that the registry has refused, unless a newer one took its place. */
  drop(owner: string, request: TokenKeyParts, token: string): void;
}

/** Where a token came from, or why there is none: `cached` counts those, too, that wait for a fetch that another has begun. */
export type TokenOutcome = "cached" | "fetched" | "refused" | "failed";

type TokenKeyParts = Pick<TokenRequest, "realm" | "service" | "scopes">;

interface CachedToken {
  readonly value: string;
  /** When a new one is fetched, in milliseconds of the cache's clock. */
  readonly renewAt: number;
}

interface CachedRefusal {
  readonly error: UpstreamError;
  /** When the token server is asked again, in milliseconds of the cache's clock. */
  readonly retryAt: number;
}

/** A token is renewed when this share of its life is over: the request that starts now has to be answered with it. */
const usedShare = 0.85;
/** What was refused is not tried again for so long, since token servers lock accounts out. */
const refusedForMs = 10_000;
const maxTokens = 5_000;

/**
 * Makes a cache of registry tokens by owner, realm, service and scopes. Many requests that want the same token cause one
 * fetch.
 * @param now milliseconds since 1970
 */
export function createTokenCache(now: () => number): TokenCache {
  // The times stand in the entries, and not in lru-cache's `ttl`, since they go by the clock that is passed in.
  const tokens = new LRUCache<string, CachedToken>({ max: maxTokens });
  const refusals = new LRUCache<string, CachedRefusal>({ max: maxTokens });
  // A plain Map, since no fetch that is under way may be evicted: the next request would fetch the same token again. It
  // holds no more entries than there are requests that wait.
  const fetches = new Map<string, Promise<string>>();

  const fetchInto = async (
    key: string,
    account: string,
    request: TokenRequest,
  ): Promise<string> => {
    const startedAt = now(); // a token's life may have begun before the response came
    try {
      const { value, lifetimeSeconds } = await fetchToken(request);
      tokens.set(key, { value, renewAt: startedAt + lifetimeSeconds * 1000 * usedShare });
      return value;
    } catch (error) {
      if (isRefusal(error)) {
        const refused = error.fault === "AuthenticationFailed" ? account : key;
        refusals.set(refused, { error, retryAt: now() + refusedForMs });
      }
      throw error;
    } finally {
      fetches.delete(key);
    }
  };
  /** @throws UpstreamError that was thrown a short while ago, and would be again */
  const throwIfRefused = (...keys: readonly string[]): void => {
    for (const refusal of keys.map((key) => refusals.get(key))) {
      if (refusal !== undefined && refusal.retryAt > now()) throw refusal.error;
    }
  };
  const freshToken = (key: string): string | undefined => {
    const cached = tokens.get(key);
    return cached !== undefined && cached.renewAt > now() ? cached.value : undefined;
  };
  return {
    async token(owner, request, onOutcome = () => undefined) {
      const key = keyOf(owner, request);
      const cached = fetches.get(key) ?? freshToken(key);
      if (cached !== undefined) {
        onOutcome("cached");
        return await cached;
      }
      const account = accountOf(owner, request);
      try {
        throwIfRefused(account, key);
        const started = fetchInto(key, account, request);
        fetches.set(key, started);
        const value = await started;
        onOutcome("fetched");
        return value;
      } catch (error) {
        onOutcome(isRefusal(error) ? "refused" : "failed");
        throw error;
      }
    },
    drop(owner, request, token) {
      const key = keyOf(owner, request);
      if (tokens.peek(key)?.value === token) tokens.delete(key);
    },
  };
}

/** Whether the token server has refused the account, or the scopes that were asked for. */
const isRefusal = (error: unknown): error is UpstreamError =>
  error instanceof UpstreamError &&
  (error.fault === "AuthenticationFailed" || error.fault === "AccessDenied");

const keyOf = (owner: string, { realm, service, scopes }: TokenKeyParts): string =>
  [owner, realm.href, service ?? "", ...scopes.toSorted()].join("\n");

const accountOf = (owner: string, { realm }: TokenKeyParts): string => `${owner}\n${realm.href}`;
