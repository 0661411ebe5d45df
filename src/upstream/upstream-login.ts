import { LRUCache } from "lru-cache";
import { showRef } from "../connector/connector-ref.ts";
import { withoutBrackets } from "../connector/host-name.ts";
import { parseChallenges } from "./challenge.ts";
import { apiUrl, fetchHead } from "./fetch-head.ts";
import { checkRealm } from "./realm.ts";
import { retryDelayMs } from "./retry-after.ts";
import type { TokenCache, TokenOutcome } from "./token-cache.ts";
import { basicAuthorization, type TokenServer } from "./token-client.ts";
import type { Upstream } from "./upstream.ts";
import { UpstreamError } from "./upstream-error.ts";

/** How a registry wants to be logged in to. */
export type LoginScheme =
  | { readonly kind: "none" }
  | { readonly kind: "basic" }
  | { readonly kind: "bearer"; readonly server: TokenServer };

/** Logs in to registries: learns which scheme each one wants, and makes the Authorization header of a request. */
export interface UpstreamLogin {
  /**
   * Makes the Authorization header of a request with these scopes.
   * @param scopes as the distribution token protocol has them: `repository:app:pull`
   * @returns undefined where the registry wants no login, or wants Basic and the connector has no credential
   * @throws UpstreamError
   */
  authorization(upstream: Upstream, scopes: readonly string[]): Promise<string | undefined>;
  /**
   * Learns from the challenge of a 401 how the registry wants to be logged in to now, and forgets the token that it has
   * refused.
   * @param authorization the header that the registry has refused
   * @param challenge the WWW-Authenticate headers of the response
   * @returns whether the next `authorization` may be a better one
   * @throws UpstreamError where the challenge asks for what must not be done
   */
  learnFromChallenge(
    upstream: Upstream,
    scopes: readonly string[],
    authorization: string | undefined,
    challenge: string | readonly string[] | undefined,
  ): boolean;
}

const pingTimeoutMs = 15_000;
const maxRegistries = 2_000;

/** What is known of a registry's login. */
interface KnownLogin {
  /** Pending while the registry is asked. */
  readonly learning: Promise<LoginScheme>;
  /** The scheme, once it is known. */
  scheme?: LoginScheme;
}

/**
 * @param tokens where the tokens of registries with Bearer come from
 * @param onTokenOutcome is called for each token that is needed, with the connector as `namespace/name`
 */
export function createUpstreamLogin(
  tokens: TokenCache,
  onTokenOutcome: (connector: string, outcome: TokenOutcome) => void = () => undefined,
): UpstreamLogin {
  /** By `tokenKey`. Requests that wait for a scheme hold its promise, so it may be evicted meanwhile. */
  const logins = new LRUCache<string, KnownLogin>({ max: maxRegistries });
  const learn = (key: string, learning: Promise<LoginScheme>): KnownLogin => {
    const login: KnownLogin = { learning };
    logins.set(key, login);
    learning.then(
      (scheme) => {
        login.scheme = scheme;
      },
      () => logins.peek(key) === login && logins.delete(key),
    );
    return login;
  };
  return {
    async authorization(upstream, scopes) {
      const { dispatcher, tokenKey } = upstream;
      const { credential } = upstream.secrets;
      const login = logins.get(tokenKey) ?? learn(tokenKey, discoverScheme(upstream));
      const scheme = login.scheme ?? (await login.learning);
      if (scheme.kind === "none") return undefined;
      if (scheme.kind === "basic") return credential && basicAuthorization(credential);
      const tokenRequest = { ...scheme.server, scopes, credential, dispatcher };
      const connector = showRef(upstream.connector);
      const onOutcome = (outcome: TokenOutcome): void => onTokenOutcome(connector, outcome);
      return `Bearer ${await tokens.token(tokenKey, tokenRequest, onOutcome)}`;
    },
    learnFromChallenge(upstream, scopes, authorization, challenge) {
      if (challenge === undefined) return false; // nothing to learn
      const { tokenKey } = upstream;
      const scheme = chooseScheme(upstream, challenge);
      const before = logins.get(tokenKey)?.scheme;
      if (before === undefined || !isSameScheme(before, scheme)) {
        learn(tokenKey, Promise.resolve(scheme)).scheme = scheme;
        return true;
      }
      if (scheme.kind !== "bearer" || authorization === undefined) return false;
      tokens.drop(tokenKey, { ...scheme.server, scopes }, authorization.slice("Bearer ".length));
      return true;
    },
  };
}

/** Sends `GET /v2/` without a login, as every client begins, and reads what the registry wants. */
async function discoverScheme(upstream: Upstream): Promise<LoginScheme> {
  const { status, headers } = await fetchHead(upstream, apiUrl(upstream, ""), {
    authorization: undefined,
    signal: AbortSignal.timeout(pingTimeoutMs),
  });
  if (status === 429 || status >= 500) {
    const message = `the registry ${upstream.connector.address.origin} answered ${status} to GET /v2/`;
    const retryAfterMs = retryDelayMs(status, headers, Date.now());
    throw new UpstreamError("ConnectionFailed", message, { retryAfterMs });
  }
  return status === 401 ? chooseScheme(upstream, headers["www-authenticate"]) : { kind: "none" };
}

/**
 * Chooses one of the schemes that a registry offers. Bearer comes before Basic, since a Basic challenge beside it is
 * often for people.
 * @param challenge the WWW-Authenticate headers of a 401
 * @throws UpstreamError where no scheme is known, or the connector's credential must not go to the token server
 */
export function chooseScheme(
  { connector, guard, secrets }: Upstream,
  challenge: string | readonly string[] | undefined,
): LoginScheme {
  const challenges = parseChallenges(challenge);
  const bearer = challenges.find(({ scheme }) => scheme === "bearer");
  const realm = bearer?.params.get("realm");
  if (bearer !== undefined && realm !== undefined) {
    const checked = checkRealm(realm, connector, secrets.credential !== undefined);
    if (!checked.ok) throw new UpstreamError("AuthRealmRejected", checked.reason);
    const host = guard.checkHost(withoutBrackets(checked.value.hostname));
    if (!host.ok) throw new UpstreamError("AddressRefused", host.reason);
    const service = bearer.params.get("service");
    return { kind: "bearer", server: { realm: checked.value, service } };
  }
  if (challenges.some(({ scheme }) => scheme === "basic")) return { kind: "basic" };
  const message = `the registry ${connector.address.origin} requires an authentication scheme that is not supported`;
  const detail = "supported are Basic and Bearer (the distribution token protocol)";
  throw new UpstreamError("AuthMethodUnknown", message, { detail });
}

const isSameScheme = (one: LoginScheme, other: LoginScheme): boolean =>
  one.kind === "bearer" && other.kind === "bearer"
    ? one.server.realm.href === other.server.realm.href &&
      one.server.service === other.server.service
    : one.kind === other.kind;
