import { fetchToken, type TokenRequest, type UpstreamToken } from "./token-client.ts";
import { UpstreamError } from "./upstream-error.ts";

export interface TokenCache {
  /**
   * A token that is good for some time yet.
   * @param owner what may share a token: connector, address and credential
   * @param tell what came of it
   * @throws UpstreamError
   */
  token(
    owner: string,
    wanted: TokenRequest,
    tell?: (outcome: TokenOutcome) => void,
  ): Promise<string>;
  /** Forgets a token that the registry has refused, unless a newer one took its place. */
  drop(owner: string, wanted: TokenKeyParts, token: string): void;
}

/** Where a token came from, or why there is none. */
export type TokenOutcome = "cached" | "fetched" | "refused" | "failed";

type TokenKeyParts = Pick<TokenRequest, "realm" | "service" | "scopes">;

interface Entry {
  readonly token: Promise<UpstreamToken>;
  /** The token itself, once it is there. */
  value?: string;
  /** Milliseconds of the clock after which a new one is fetched; endless while it is being fetched. */
  freshUntil: number;
}

/** Renewed when 85 % of its life is over: a request that starts now has to be answered with it. */
const usedShare = 0.85;
/** What was refused is not tried again for so long, since token servers lock accounts out. Milliseconds. */
const refusedForMs = 10_000;
const maxTokens = 5_000;

/**
 * Registry tokens by (owner, realm, service, scopes). Many requests that want the same token cause
 * one fetch.
 */
export function createTokenCache(now: () => number): TokenCache {
  const entries = new Map<string, Entry>();
  const refusals = new Map<string, { readonly error: UpstreamError; readonly until: number }>();

  const fetchInto = (key: string, account: string, wanted: TokenRequest): Entry => {
    const asked = now(); // its life may have begun before its answer has come
    const entry: Entry = { token: fetchToken(wanted), freshUntil: Number.POSITIVE_INFINITY };
    remember(entries, key, entry);
    entry.token.then(
      ({ value, lifetimeSeconds: lifetime }) => {
        entry.value = value;
        entry.freshUntil = asked + lifetime * 1000 * usedShare;
      },
      (error: unknown) => {
        if (entries.get(key) === entry) entries.delete(key);
        if (!(error instanceof UpstreamError)) return;
        const until = now() + refusedForMs;
        if (error.fault === "AuthenticationFailed") remember(refusals, account, { error, until });
        if (error.fault === "AccessDenied") remember(refusals, key, { error, until });
      },
    );
    return entry;
  };
  /** @throws UpstreamError that was thrown a short while ago, and would be again */
  const throwIfRefused = (...keys: readonly string[]): void => {
    for (const refused of keys.map((key) => refusals.get(key))) {
      if (refused !== undefined && refused.until > now()) throw refused.error;
    }
  };
  return {
    async token(owner, wanted, tell = () => undefined) {
      const key = keyOf(owner, wanted);
      const entry = entries.get(key);
      if (entry !== undefined && entry.freshUntil > now()) {
        tell("cached");
        return entry.value ?? (await entry.token).value;
      }
      const account = accountOf(owner, wanted);
      try {
        throwIfRefused(account, key);
        const { value } = await fetchInto(key, account, wanted).token;
        tell("fetched");
        return value;
      } catch (error) {
        tell(isRefusal(error) ? "refused" : "failed");
        throw error;
      }
    },
    drop(owner, wanted, token) {
      const key = keyOf(owner, wanted);
      if (entries.get(key)?.value === token) entries.delete(key);
    },
  };
}

const isRefusal = (error: unknown): boolean =>
  error instanceof UpstreamError &&
  (error.fault === "AuthenticationFailed" || error.fault === "AccessDenied");

const keyOf = (owner: string, { realm, service, scopes }: TokenKeyParts): string =>
  [owner, realm.href, service ?? "", ...scopes.toSorted()].join("\n");

const accountOf = (owner: string, { realm }: TokenKeyParts): string => `${owner}\n${realm.href}`;

function remember<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
  const [oldest] = map.keys();
  if (map.size > maxTokens && oldest !== undefined) map.delete(oldest);
}
