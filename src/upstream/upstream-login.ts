import { KnownLogins, type LoginRequest } from "./known-logins.ts";
import { LoginHolds } from "./login-holds.ts";
import { RequestLogin } from "./request-login.ts";
import type { TokenCache, TokenOutcome } from "./token-cache.ts";
import type { Upstream } from "./upstream.ts";

/** Logs in to registries: learns which scheme each one wants, and makes the Authorization headers of requests. */
export interface UpstreamLogin {
  /**
   * Begins the login of a request.
   * @param request its first scope tells the repository
   * @param signal is aborted when nobody waits for the request any more
   */
  begin(upstream: Upstream, request: LoginRequest, signal: AbortSignal): RequestLogin;
}

/**
 * @param tokens where the tokens of registries with Bearer come from
 * @param now milliseconds since 1970
 * @param onTokenOutcome is called for each token that is needed, with the connector as `namespace/name`
 */
export function createUpstreamLogin(
  tokens: TokenCache,
  now: () => number,
  onTokenOutcome: (connector: string, outcome: TokenOutcome) => void = () => undefined,
): UpstreamLogin {
  const known = new KnownLogins(now);
  const holds = new LoginHolds(now);
  return {
    begin: (upstream, request, signal) =>
      new RequestLogin({ upstream, request, known, tokens, holds, signal, onTokenOutcome }),
  };
}
