/** What the challenges of a registry's refusals say: how it wants to be logged in to, and which scopes it wants. */
import type { Credential } from "../connector/credential.ts";
import { type Challenge, parseChallenges } from "./challenge.ts";
import { checkRealm } from "./realm.ts";
import { basicAuthorization, type TokenServer } from "./token-client.ts";
import type { Upstream } from "./upstream.ts";
import { UpstreamError, unreachable } from "./upstream-error.ts";

/** How a registry wants to be logged in to. `basic` also stands for a credential that is a bearer token of its own. */
export type LoginScheme =
  | { readonly kind: "none" }
  | { readonly kind: "basic" }
  | { readonly kind: "bearer"; readonly server: TokenServer };

/** The WWW-Authenticate headers of a response. */
export type ChallengeHeaders = string | readonly string[] | undefined;

/** Services have some 20 characters. What is kept of a login has them in it. */
const maxServiceLength = 1024;

/**
 * Chooses one of the schemes that a registry offers. Bearer comes before Basic, since a Basic challenge beside it is
 * often for people.
 * @throws UpstreamError where no scheme is known, or the connector's credential must not go to the token server
 */
export function chooseScheme(upstream: Upstream, challenge: ChallengeHeaders): LoginScheme {
  const offered = offeredScheme(upstream, challenge);
  if (offered !== undefined) return offered;
  const { origin } = upstream.connector.address;
  const message = `the registry ${origin} requires an authentication scheme that is not supported`;
  const detail = takesBasic(upstream)
    ? "supported are Basic and Bearer (the distribution token protocol)"
    : "with an identity token Bearer alone is supported (the distribution token protocol): use a user and a password";
  throw new UpstreamError("AuthMethodUnknown", message, { detail });
}

/**
 * The scheme of {@link chooseScheme}, where one that is known is offered.
 * @throws UpstreamError where the connector's credential must not go to the token server
 */
function offeredScheme(upstream: Upstream, challenge: ChallengeHeaders): LoginScheme | undefined {
  if (upstream.secrets.credential?.kind === "bearerToken") return { kind: "basic" };
  const challenges = parseChallenges(challenge);
  const servers = challenges
    .filter(({ scheme, params }) => scheme === "bearer" && params.has("realm"))
    .map((bearer) => checkServer(upstream, bearer));
  const usable = servers.find((server) => !(server instanceof UpstreamError)) ?? servers[0];
  if (usable instanceof UpstreamError) throw usable;
  if (usable !== undefined) return { kind: "bearer", server: usable };
  const offersBasic = challenges.some(({ scheme }) => scheme === "basic");
  return offersBasic && takesBasic(upstream) ? { kind: "basic" } : undefined;
}

/**
 * The scheme to log in by where no login was asked for: Basic, as other clients send it, unless there is a challenge.
 * @returns undefined where that challenge must not be followed, or the credential is none for Basic
 */
export function schemeToTry(
  upstream: Upstream,
  challenge: ChallengeHeaders,
): LoginScheme | undefined {
  try {
    return (
      offeredScheme(upstream, challenge) ?? (takesBasic(upstream) ? { kind: "basic" } : undefined)
    );
  } catch (error) {
    if (error instanceof UpstreamError) return undefined;
    throw error;
  }
}

/** The Authorization with a credential itself: Basic, or the bearer token that it is. */
export const directAuthorization = (credential: Credential): string =>
  credential.kind === "bearerToken"
    ? `Bearer ${credential.password}`
    : basicAuthorization(credential);

/** Whether a registry may be sent the connector's credential with Basic: an identity token is for token servers alone. */
const takesBasic = ({ secrets }: Pick<Upstream, "secrets">): boolean =>
  secrets.credential?.kind !== "identityToken";

function checkServer(
  { connector, guard, secrets }: Upstream,
  { params }: Challenge,
): TokenServer | UpstreamError {
  const hasCredential = secrets.credential !== undefined;
  const checked = checkRealm(params.get("realm") ?? "", connector, hasCredential);
  if (!checked.ok) return new UpstreamError("AuthRealmRejected", checked.reason);
  const refused = guard.checkHost(checked.value);
  if (refused !== undefined) {
    const isConcealed = guard.isConcealed(checked.value);
    return unreachable(`the token server ${checked.value.host}`, refused, isConcealed);
  }
  const service = params.get("service");
  if (service !== undefined && service.length > maxServiceLength) {
    const message = `the registry names a token service by ${service.length} characters; ${maxServiceLength} are the most`;
    return new UpstreamError("AnswerInvalid", message);
  }
  return { realm: checked.value, service };
}

/** Whether two schemes lead to the same login: for Bearer, at the same realm and for the same service. */
export const isSameScheme = (one: LoginScheme, other: LoginScheme): boolean =>
  one.kind === "bearer" && other.kind === "bearer"
    ? one.server.realm.href === other.server.realm.href &&
      one.server.service === other.server.service
    : one.kind === other.kind;

/** Whether two schemes take tokens of the same realm, whatever its service. */
export const hasSameRealm = (one: LoginScheme | undefined, other: LoginScheme): boolean =>
  one?.kind === "bearer" &&
  other.kind === "bearer" &&
  one.server.realm.href === other.server.realm.href;

/** What a challenge says of a token that was sent. */
export interface ScopeChallenge {
  /** Whether it says that the token is good, and not for this (RFC 6750, section 3.1). */
  readonly isInsufficient: boolean;
  /** The scopes with the challenge's actions beside their own; undefined where it names no action beyond these. */
  readonly scopes: readonly string[] | undefined;
}

/** The name of an action, such as `pull`, `metadata_read` or `*`. */
const actionName = /^[a-z_*-]{1,32}$/;
const maxActions = 10;

/**
 * Reads which actions a registry wants where a token for the computed scopes was not enough: Azure wants `metadata_read`
 * for a list of tags, others `*` for a DELETE. What the challenge says of other repositories counts for nothing.
 * @param scopes those of the token that was sent
 */
export function readScopeChallenge(
  challenge: ChallengeHeaders,
  scopes: readonly string[],
): ScopeChallenge {
  const bearer = parseChallenges(challenge).find(({ scheme }) => scheme === "bearer");
  const named = (bearer?.params.get("scope") ?? "").split(" ");
  const wanted = scopes.map((scope) => {
    const resource = resourceOf(scope);
    const own = actionsOf(scope);
    const actions = new Set(
      named
        .filter((other) => resourceOf(other) === resource)
        .flatMap(actionsOf)
        .filter((action) => actionName.test(action)),
    );
    if ([...actions].every((action) => own.includes(action))) return scope;
    // Some name the missing action alone, and the request needs the others as well.
    const all = actions.has("*") ? actions : new Set([...own, ...actions]);
    return `${resource}:${[...all].slice(0, maxActions)}`;
  });
  return {
    isInsufficient: bearer?.params.get("error") === "insufficient_scope",
    scopes: wanted.some((scope, index) => scope !== scopes[index]) ? wanted : undefined,
  };
}

/** What a scope is about: `repository:app` of `repository:app:pull`. */
export const resourceOf = (scope: string): string => scope.slice(0, scope.lastIndexOf(":"));

const actionsOf = (scope: string): string[] => scope.slice(scope.lastIndexOf(":") + 1).split(",");
