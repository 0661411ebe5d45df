/** The login by Basic, or by a bearer token of its own: how it is sent, and what its refusal may be about. */
import { apiUrl, fetchHead } from "./fetch-head.ts";
import { kindOf, type LoginUse } from "./known-logins.ts";
import type { LoginVerdict, SentLogin } from "./login-holds.ts";
import { directAuthorization, type LoginScheme, resourceOf } from "./login-scheme.ts";
import type { Upstream } from "./upstream.ts";
import { UpstreamError } from "./upstream-error.ts";

/** How long a registry may take to say whether it accepts a login. */
const judgeTimeoutMs = 15_000;

/**
 * The login by Basic that a request is sent with.
 * @param scheme how the registry wants to be logged in to at `/v2/`, as far as that is known
 */
export function basicLoginOf(
  upstream: Upstream,
  use: LoginUse,
  scheme: LoginScheme | undefined,
): SentLogin {
  const { tokenKey, secrets } = upstream;
  return {
    owner: tokenKey,
    server: "basic",
    purpose: kindOf(use),
    resource: resourceOf(use.scope),
    isAnonymous: secrets.credential === undefined,
    isJudgedFirst: true,
    judge: () => judgeBasicLogin(upstream, scheme),
    refusal: () => basicRefusal(upstream),
  };
}

/** What is said where a registry refuses the login by Basic. */
export function basicRefusal({ connector }: Upstream): UpstreamError {
  const message = `the registry ${connector.address.origin} refused the connector's login (401)`;
  const detail =
    connector.identity === undefined
      ? "check the username and the password in the connector's Secret, and what that account may do"
      : "check what the registry demands of the connector's identity, and what its account may do";
  return new UpstreamError("AuthenticationFailed", message, { detail });
}

/** Sends the login by `GET /v2/`, which tells nothing where everybody is answered there. */
async function judgeBasicLogin(
  upstream: Upstream,
  scheme: LoginScheme | undefined,
): Promise<LoginVerdict> {
  const { credential } = upstream.secrets;
  if (credential === undefined) return "unknown";
  try {
    const { status } = await fetchHead(upstream, apiUrl(upstream, ""), {
      authorization: directAuthorization(credential),
      signal: AbortSignal.timeout(judgeTimeoutMs),
    });
    if (status === 401) return "refused";
    return status === 200 && scheme?.kind === "basic" ? "accepted" : "unknown";
  } catch (error) {
    if (error instanceof UpstreamError) return "unknown";
    throw error;
  }
}
