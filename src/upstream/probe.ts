import type { Connector } from "../connector/connector.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import { type RegistryAddress, upstreamRepository } from "../connector/registry-address.ts";
import { AddressRefused } from "./address-guard.ts";
import { withExpiry } from "./expired-certificate.ts";
import { apiUrl, type FetchedHead, fetchHead } from "./fetch-head.ts";
import { parseLocation } from "./location.ts";
import { chooseScheme, directAuthorization } from "./login-scheme.ts";
import { fetchToken } from "./token-client.ts";
import type { Upstream, Upstreams } from "./upstream.ts";
import { UpstreamError, type UpstreamFault } from "./upstream-error.ts";

/** The reason and the message of a condition, about one side of a registry. */
export type ProbeFinding =
  | { readonly ok: true; readonly reason: string; readonly message: string }
  | {
      readonly ok: false;
      readonly reason: UpstreamFault | "NotARegistry";
      readonly message: string;
    };

/** What a probe has found. */
export interface ProbeResult {
  /** Whether a registry answers at the address. */
  readonly liveness: ProbeFinding;
  /** Whether it accepts the connector's login. Where liveness is not ok, no login was tried, and this is the same. */
  readonly auth: ProbeFinding;
}

/**
 * Asks a registry whether it is there, and logs in to it once at most. No cache is used.
 * @throws the signal's reason, where it is aborted
 */
export type Probe = (
  connector: Connector,
  secrets: UpstreamSecrets,
  signal: AbortSignal,
) => Promise<ProbeResult>;

const timeoutMs = 15_000;

/**
 * Makes a probe that shares its connections with others of the same upstreams.
 * @param onConcealed gets why a registry can't be reached, where its finding must not say so
 */
export function createProbe(
  upstreams: Upstreams,
  onConcealed: (connector: Connector, cause: unknown) => void = () => undefined,
): Probe {
  return async (connector, secrets, signal) => {
    const upstream = upstreams.of(connector, secrets);
    const findingOf = (failure: UpstreamError): ProbeFinding => {
      const error = withExpiry(failure, upstream, Date.now());
      if (error.isConcealed) onConcealed(connector, error.cause);
      return createFinding(error);
    };
    const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    const ping = await valueOrError(
      () => fetchHead(upstream, apiUrl(upstream, ""), { authorization: undefined, signal: limit }),
      signal,
    );
    if (ping instanceof UpstreamError) {
      const liveness = findingOf(ping);
      return { liveness, auth: liveness };
    }
    const { status, headers } = ping;
    const { origin } = connector.address;
    if (status !== 200 && status !== 401) {
      const url = apiUrl(upstream, "");
      const hint = redirectHint(connector.address, url, headers.location);
      const message = `${url.href} answered ${status}, wanted 200 or 401 as from a registry${hint}`;
      const liveness = { ok: false, reason: "NotARegistry", message } as const;
      return { liveness, auth: liveness };
    }
    const liveness = { ok: true, reason: "Answers", message: `${origin} answers` } as const;
    if (status === 200) return { liveness, auth: noLoginWanted };
    const challenge = headers["www-authenticate"];
    const auth = await valueOrError(() => logIn(upstream, challenge, limit), signal);
    return { liveness, auth: auth instanceof UpstreamError ? findingOf(auth) : auth };
  };
}

/** What to do where a registry redirects `/v2/`: the proxy follows, but sends each request twice, the first in clear text. */
function redirectHint(
  { origin }: RegistryAddress,
  requested: URL,
  location: FetchedHead["headers"][string],
): string {
  const url = typeof location === "string" ? parseLocation(location, requested) : undefined;
  if (url === undefined || url.origin === origin) return "";
  return url.origin === origin.replace(/^http:/, "https:")
    ? `; it redirects to https, so write ${url.origin} in spec.address`
    : `; it redirects to ${url.origin}: if that is the registry, write it in spec.address`;
}

const noLoginWanted: ProbeFinding = {
  ok: true,
  reason: "NonAuthProbe",
  message:
    "the registry answers GET /v2/ without a login, so the login is tested only when it is used",
};

/** That the guard refuses an address says nothing of what listens there, so the Connector's status may show it. */
function createFinding({ fault, message, detail, cause }: UpstreamError): ProbeFinding {
  if (cause instanceof AddressRefused) {
    return { ok: false, reason: "AddressRefused", message: cause.message };
  }
  return {
    ok: false,
    reason: fault,
    message: detail === undefined ? message : `${message}; ${detail}`,
  };
}

/** @throws the signal's reason, where it is aborted */
async function valueOrError<T>(
  action: () => Promise<T>,
  signal: AbortSignal,
): Promise<T | UpstreamError> {
  try {
    return await action();
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof UpstreamError) return error;
    throw error;
  }
}

const refusedDetail = ({ identity }: Connector): string =>
  identity === undefined
    ? "check the username and the password in the connector's Secret"
    : "check what the registry demands of the connector's identity";

/** @throws UpstreamError where the registry does not accept the login, or denies the probe's repository */
async function logIn(
  upstream: Upstream,
  challenge: string | readonly string[] | undefined,
  signal: AbortSignal,
): Promise<ProbeFinding> {
  const { connector, secrets, send, guard } = upstream;
  const { credential } = secrets;
  const { probeRepository, address } = connector;
  const scheme = chooseScheme(upstream, challenge);
  const scopes = probeRepository === undefined ? [] : [`repository:${probeRepository}:pull`];
  if (scheme.kind === "basic" && credential === undefined) {
    const detail = "set the connector's spec.auth.secretRef, or give it an identity";
    throw new UpstreamError("AuthenticationFailed", `${address.origin} requires a login`, {
      detail,
    });
  }
  const authorization =
    scheme.kind === "bearer"
      ? `Bearer ${(await fetchToken({ ...scheme.server, scopes, credential, send, guard }, signal)).value}`
      : credential && directAuthorization(credential);
  const { status } = await fetchHead(upstream, apiUrl(upstream, ""), { authorization, signal });
  if (status !== 200) {
    const detail = refusedDetail(connector);
    const message = `${address.origin} answered ${status} to the connector's login`;
    throw new UpstreamError("AuthenticationFailed", message, { detail });
  }
  if (probeRepository !== undefined) {
    const path = `${upstreamRepository(address, probeRepository)}/tags/list?n=1`;
    const tags = await fetchHead(upstream, apiUrl(upstream, path), { authorization, signal });
    if (tags.status === 401 || tags.status === 403) {
      const message = `${address.origin} answered ${tags.status} for the repository ${probeRepository}`;
      const detail = "check what the connector's account may read";
      throw new UpstreamError("AccessDenied", message, { detail });
    }
  }
  const who = credential === undefined ? "everybody" : "the connector's account";
  return { ok: true, reason: "Authenticated", message: `${address.origin} lets ${who} in` };
}
