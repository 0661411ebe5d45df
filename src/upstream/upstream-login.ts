import { type Dispatcher, request } from "undici";
import { showRef } from "../connector/connector-ref.ts";
import { parseChallenges } from "./challenge.ts";
import { checkRealm } from "./realm.ts";
import { retryDelayMs } from "./retry-after.ts";
import type { TokenCache, TokenOutcome } from "./token-cache.ts";
import { basicAuthorization, type TokenServer } from "./token-client.ts";
import type { Upstream } from "./upstream.ts";
import { UpstreamError, unreachable } from "./upstream-error.ts";

/** How a registry wants to be logged in to. */
export type LoginScheme =
  | { readonly kind: "none" }
  | { readonly kind: "basic" }
  | { readonly kind: "bearer"; readonly server: TokenServer };

/** Logs in to registries: knows how each one wants it, and has the Authorization header for a request. */
export interface UpstreamLogin {
  /**
   * The Authorization header for a request with these scopes, undefined where the registry wants none.
   * @throws UpstreamError
   */
  authorization(upstream: Upstream, scopes: readonly string[]): Promise<string | undefined>;
  /**
   * The registry has answered 401 to a request with that header. Learns from its challenge, forgets
   * the token, and tells whether another attempt can have a better header.
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

interface Knowledge {
  readonly asked: Promise<LoginScheme>;
  /** What came of it, once it has come. */
  scheme?: LoginScheme;
}

/** @param tell what came of each need for a token, by `namespace/name` of its connector */
export function createUpstreamLogin(
  tokens: TokenCache,
  tell: (connector: string, outcome: TokenOutcome) => void = () => undefined,
): UpstreamLogin {
  const registries = new Map<string, Knowledge>();
  const learn = (key: string, asked: Promise<LoginScheme>): Knowledge => {
    const knowledge: Knowledge = { asked };
    if (registries.size >= maxRegistries) registries.clear();
    registries.set(key, knowledge);
    asked.then(
      (scheme) => {
        knowledge.scheme = scheme;
      },
      () => registries.get(key) === knowledge && registries.delete(key),
    );
    return knowledge;
  };
  return {
    async authorization(upstream, scopes) {
      const { dispatcher, tokenKey } = upstream;
      const { credential } = upstream.secrets;
      const knowledge = registries.get(tokenKey) ?? learn(tokenKey, askForScheme(upstream));
      const scheme = knowledge.scheme ?? (await knowledge.asked);
      if (scheme.kind === "none") return undefined;
      if (scheme.kind === "basic")
        return credential === undefined ? undefined : basicAuthorization(credential);
      const wanted = { ...scheme.server, scopes, credential, dispatcher };
      const connector = showRef(upstream.connector);
      return `Bearer ${await tokens.token(tokenKey, wanted, (outcome) => tell(connector, outcome))}`;
    },
    learnFromChallenge(upstream, scopes, authorization, challenge) {
      if (challenge === undefined) return false; // nothing to learn
      const { tokenKey } = upstream;
      const asked = chooseScheme(upstream, challenge);
      const before = registries.get(tokenKey)?.scheme;
      if (before === undefined || !isSame(before, asked)) {
        learn(tokenKey, Promise.resolve(asked)).scheme = asked;
        return true;
      }
      if (asked.kind !== "bearer" || authorization === undefined) return false;
      tokens.drop(tokenKey, { ...asked.server, scopes }, authorization.slice("Bearer ".length));
      return true;
    },
  };
}

/** `GET /v2/` without a login, as every client begins. */
async function askForScheme(upstream: Upstream): Promise<LoginScheme> {
  const { connector, dispatcher: agent, guard } = upstream;
  const { origin, basePath, hostname } = connector.address;
  const host = guard.checkHost(hostname);
  if (!host.ok) throw new UpstreamError("AddressRefused", host.reason);
  const { status, challenge, wait } = await ping(`${origin}${basePath}/v2/`, agent).catch(
    (error) => {
      throw unreachable(`the registry ${origin}`, error);
    },
  );
  if (status === 429 || status >= 500) {
    const message = `the registry ${origin} answered ${status} to GET /v2/`;
    throw new UpstreamError("ConnectionFailed", message, { retryAfterMs: wait });
  }
  return status === 401 ? chooseScheme(upstream, challenge) : { kind: "none" };
}

interface Pong {
  readonly status: number;
  readonly challenge: string | string[] | undefined;
  /** Milliseconds, where a busy server has said so. */
  readonly wait: number | undefined;
}

async function ping(url: string, dispatcher: Dispatcher): Promise<Pong> {
  const signal = AbortSignal.timeout(pingTimeoutMs);
  const { statusCode, headers, body } = await request(url, { dispatcher, signal });
  await body.dump({ limit: 64 * 1024 });
  const wait = retryDelayMs(statusCode, headers, Date.now());
  return { status: statusCode, challenge: headers["www-authenticate"], wait };
}

/** Bearer, where there is a choice: a Basic challenge beside it is often for people. */
export function chooseScheme(
  { connector, guard }: Upstream,
  header: string | readonly string[] | undefined,
): LoginScheme {
  const challenges = parseChallenges(header);
  const bearer = challenges.find(({ scheme }) => scheme === "bearer");
  const realm = bearer?.params.get("realm");
  if (bearer !== undefined && realm !== undefined) {
    const checked = checkRealm(realm, connector);
    if (!checked.ok) throw new UpstreamError("AuthRealmRejected", checked.reason);
    const host = guard.checkHost(checked.value.hostname.replace(/^\[|\]$/g, ""));
    if (!host.ok) throw new UpstreamError("AddressRefused", host.reason);
    const service = bearer.params.get("service");
    return { kind: "bearer", server: { realm: checked.value, service } };
  }
  if (challenges.some(({ scheme }) => scheme === "basic")) return { kind: "basic" };
  const message = `the registry ${connector.address.origin} requires an authentication scheme that is not supported`;
  const detail = "supported are Basic and Bearer (the distribution token protocol)";
  throw new UpstreamError("AuthMethodUnknown", message, { detail });
}

const isSame = (one: LoginScheme, other: LoginScheme): boolean =>
  one.kind === "bearer" && other.kind === "bearer"
    ? one.server.realm.href === other.server.realm.href &&
      one.server.service === other.server.service
    : one.kind === other.kind;
