import { request } from "undici";
import type { Connector } from "../connector/connector.ts";
import { upstreamRepository } from "../connector/registry-address.ts";
import type { UpstreamSecrets } from "../connector/surroundings.ts";
import { basicAuthorization, fetchToken } from "./token-client.ts";
import type { Upstream, Upstreams } from "./upstream.ts";
import { UpstreamError, type UpstreamFault, unreachable } from "./upstream-error.ts";
import { chooseScheme } from "./upstream-login.ts";

/** What a look at one side of a registry has found: the reason and the message of a condition. */
export type ProbeFinding =
  | { readonly ok: true; readonly reason: string; readonly message: string }
  | {
      readonly ok: false;
      readonly reason: UpstreamFault | "NotARegistry";
      readonly message: string;
    };

export interface ProbeResult {
  readonly liveness: ProbeFinding;
  /** Where liveness is not ok, nobody has looked. */
  readonly auth: ProbeFinding;
}

/**
 * Asks a registry whether it is there, and logs in to it once at most, past every cache.
 * @throws where the signal aborts
 */
export type Probe = (
  connector: Connector,
  secrets: UpstreamSecrets,
  signal: AbortSignal,
) => Promise<ProbeResult>;

/** Milliseconds. */
const timeoutMs = 15_000;

export function createProbe(upstreams: Upstreams): Probe {
  return async (connector, secrets, signal) => {
    const upstream = upstreams.of(connector, secrets);
    const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    const answer = await outcome(() => ask(upstream, "/v2/", undefined, limit), signal);
    if (answer instanceof UpstreamError) {
      const liveness = failed(answer);
      return { liveness, auth: liveness };
    }
    const { status, challenge } = answer;
    const { origin } = connector.address;
    if (status !== 200 && status !== 401) {
      const message = `${origin}${connector.address.basePath}/v2/ answered ${status}, wanted 200 or 401 as from a registry`;
      const liveness = { ok: false, reason: "NotARegistry", message } as const;
      return { liveness, auth: liveness };
    }
    const liveness = { ok: true, reason: "Answers", message: `${origin} answers` } as const;
    if (status === 200) return { liveness, auth: nonAuth };
    const auth = await outcome(() => logIn(upstream, challenge, limit), signal);
    return { liveness, auth: auth instanceof UpstreamError ? failed(auth) : auth };
  };
}

const nonAuth: ProbeFinding = {
  ok: true,
  reason: "NonAuthProbe",
  message:
    "the registry answers GET /v2/ without a login, so the login is tested only when it is used",
};

const failed = ({ fault, message, detail }: UpstreamError): ProbeFinding => ({
  ok: false,
  reason: fault,
  message: detail === undefined ? message : `${message}; ${detail}`,
});

async function outcome<T>(ask: () => Promise<T>, signal: AbortSignal): Promise<T | UpstreamError> {
  try {
    return await ask();
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof UpstreamError) return error;
    throw error;
  }
}

interface Pong {
  readonly status: number;
  readonly challenge: string | string[] | undefined;
}

async function ask(
  { connector, dispatcher: agent, guard }: Upstream,
  path: string,
  authorization: string | undefined,
  signal: AbortSignal,
): Promise<Pong> {
  const { origin, basePath, hostname } = connector.address;
  const host = guard.checkHost(hostname);
  if (!host.ok) throw new UpstreamError("AddressRefused", host.reason);
  try {
    const { statusCode, headers, body } = await request(`${origin}${basePath}${path}`, {
      dispatcher: agent,
      signal,
      ...(authorization === undefined ? {} : { headers: { authorization } }),
    });
    await body.dump({ limit: 64 * 1024 });
    return { status: statusCode, challenge: headers["www-authenticate"] };
  } catch (error) {
    throw unreachable(`the registry ${origin}`, error);
  }
}

async function logIn(
  upstream: Upstream,
  challenge: Pong["challenge"],
  signal: AbortSignal,
): Promise<ProbeFinding> {
  const { connector, secrets, dispatcher: agent } = upstream;
  const { credential } = secrets;
  const { probeRepository, address } = connector;
  const scheme = chooseScheme(upstream, challenge);
  const scopes = probeRepository === undefined ? [] : [`repository:${probeRepository}:pull`];
  if (scheme.kind === "basic" && credential === undefined) {
    const detail = "set the connector's spec.auth.secretRef";
    throw new UpstreamError("AuthenticationFailed", `${address.origin} requires a login`, {
      detail,
    });
  }
  const authorization =
    scheme.kind === "bearer"
      ? `Bearer ${(await fetchToken({ ...scheme.server, scopes, credential, dispatcher: agent })).value}`
      : credential && basicAuthorization(credential);
  const { status } = await ask(upstream, "/v2/", authorization, signal);
  if (status !== 200) {
    const detail = "check the username and the password in the connector's Secret";
    const message = `${address.origin} answered ${status} to the connector's login`;
    throw new UpstreamError("AuthenticationFailed", message, { detail });
  }
  if (probeRepository !== undefined) {
    const path = `/v2/${upstreamRepository(address, probeRepository)}/tags/list?n=1`;
    const answer = await ask(upstream, path, authorization, signal);
    if (answer.status === 401 || answer.status === 403) {
      const message = `${address.origin} answered ${answer.status} for the repository ${probeRepository}`;
      const detail = "check what the connector's account may read";
      throw new UpstreamError("AccessDenied", message, { detail });
    }
  }
  const who = credential === undefined ? "everybody" : "the connector's account";
  return { ok: true, reason: "Authenticated", message: `${address.origin} lets ${who} in` };
}
