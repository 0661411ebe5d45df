import type { Connector } from "../connector/connector.ts";
import { property } from "../connector/document.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { Probe } from "../upstream/probe.ts";
import { readConditions, timestamp } from "./conditions.ts";
import {
  acceptedAuth,
  type IdentityLogins,
  type IdentityRefusal,
  type LoginRecord,
  loginForProbe,
  readLoginRecord,
} from "./identity-login.ts";

/** What is known of a registry: whether it lives, and whether it accepts the connector's credential. */
export interface ProbeOutcome {
  readonly liveness: ProbeStatus;
  /** Says nothing where liveness is not ok: then nobody has tried to log in. */
  readonly auth: ProbeStatus;
  /** The refusal of the credential that the connector has; undefined where it was not refused. */
  readonly refusal: AuthRefusal | undefined;
  /** The login of a connector with an identity; undefined for any other. */
  readonly login?: LoginRecord | IdentityRefusal;
}

/** The registry to probe, and what is known of it. */
export interface ProbeSubject {
  readonly connector: Connector;
  readonly secrets: UpstreamSecrets;
  /** The Connector with its status, where other replicas record refusals. */
  readonly object: KubeObject;
  /** Differs where a login may have another outcome: after each change of the spec or of the Secret. */
  readonly loginVersion: string;
  /** The outcome of the last probe; undefined where it is time to probe the registry again. */
  readonly known: ProbeOutcome | undefined;
  /** The last refusal that this replica knows of. */
  readonly refusal: AuthRefusal | undefined;
}

/** What is needed to probe a registry. */
export interface ProbeRegistryOptions {
  readonly probe: Probe;
  readonly identityLogins: IdentityLogins;
  /** The time, in milliseconds since 1970. */
  readonly now: () => number;
  /** Ends the probe. */
  readonly signal: AbortSignal;
}

/** What is known of a registry without a probe; undefined where it is time for one. */
export function knownOutcome(
  subject: Omit<ProbeSubject, "secrets" | "connector">,
): ProbeOutcome | undefined {
  const { loginVersion, known } = subject;
  if (known === undefined) return undefined;
  const refusal = lastRefusal(subject.object, subject.refusal, loginVersion);
  if (refusal !== undefined) return { ...known, auth: refusalStatus(refusal), refusal };
  // Another replica may have logged in where we were refused.
  return known.refusal === undefined ? known : undefined;
}

/**
 * Probes a registry where that is due. A credential that was refused is not tried again for a while: until then the
 * probe goes without a credential, which shows whether the registry lives.
 * @throws what `probe` throws
 */
export async function probeRegistry(
  subject: ProbeSubject,
  options: ProbeRegistryOptions,
): Promise<ProbeOutcome> {
  const { connector, secrets, loginVersion } = subject;
  const { probe, now, signal } = options;
  const known = knownOutcome(subject);
  if (known !== undefined) return known;
  const refusal = lastRefusal(subject.object, subject.refusal, loginVersion);
  if (refusal !== undefined && now() < nextAttemptAt(refusal)) {
    const { liveness } = await probe(connector, { ...secrets, credential: undefined }, signal);
    const record = readLoginRecord(subject.object, loginVersion);
    const login = record === undefined ? {} : { login: record };
    return { liveness, auth: refusalStatus(refusal), refusal, ...login };
  }
  return connector.identity === undefined
    ? await tryLogin(subject, refusal, options)
    : await probeWithIdentity(subject, refusal, options);
}

async function probeWithIdentity(
  subject: ProbeSubject,
  refusal: AuthRefusal | undefined,
  options: ProbeRegistryOptions,
): Promise<ProbeOutcome> {
  const { connector, secrets, object } = subject;
  const login = await loginForProbe(subject, options.identityLogins);
  if (login.ok && login.credential !== undefined) {
    const withLogin = { ...subject, secrets: { ...secrets, credential: login.credential } };
    return { ...(await tryLogin(withLogin, refusal, options)), login: login.record };
  }
  const { liveness } = await options.probe(
    connector,
    { ...secrets, credential: undefined },
    options.signal,
  );
  if (!login.ok) return { liveness, auth: login, refusal, login };
  const { reason = "", message = "" } = acceptedAuth(object) ?? {};
  return { liveness, auth: { ok: true, reason, message }, refusal, login: login.record };
}

async function tryLogin(
  { connector, secrets, loginVersion }: ProbeSubject,
  refusal: AuthRefusal | undefined,
  { probe, now, signal }: ProbeRegistryOptions,
): Promise<ProbeOutcome> {
  const result = await probe(connector, secrets, signal);
  if (!result.liveness.ok) return { ...result, refusal };
  if (secrets.credential === undefined || !isRefusal(result.auth)) {
    return { ...result, refusal: undefined };
  }
  const { reason, message } = result.auth;
  const count = (refusal?.count ?? 0) + 1;
  const refused = { version: loginVersion, count, time: now(), reason, message };
  return { ...result, auth: refusalStatus(refused), refusal: refused };
}

/** The outcome of one part of a probe, with the reason and the message of a condition. */
export interface ProbeStatus {
  readonly ok: boolean;
  readonly reason: string;
  readonly message: string;
}

/**
 * That a registry has refused a credential. It stands in the Connector's status (authProbe) as long as that credential
 * is the Connector's, so that neither another replica nor a restart makes the next attempt earlier: many registries
 * lock an account after a few attempts.
 */
export interface AuthRefusal {
  /** Which spec and which Secret were refused. */
  readonly version: string;
  /** How many attempts in a row were refused. */
  readonly count: number;
  /** The time of the last attempt, in milliseconds since 1970. */
  readonly time: number;
  readonly reason: string;
  readonly message: string;
}

const initialHoldMs = 5 * 60_000;

const maxHoldMs = 60 * 60_000;

/**
 * When the credential may be tried again: after five minutes, then after twice as long each time, up to an hour. In
 * milliseconds since 1970.
 */
export const nextAttemptAt = ({ count, time }: AuthRefusal): number =>
  time + Math.min(initialHoldMs * 2 ** Math.min(count - 1, 10), maxHoldMs);

/**
 * Whether a probe has failed in a way that may lock an account. Some token servers respond to a wrong password with 403
 * (GitLab's).
 */
export const isRefusal = ({ reason }: ProbeStatus): boolean =>
  reason === "AuthenticationFailed" || reason === "AccessDenied";

/** The outcome of a login that is not tried yet, since it was refused before. */
export function refusalStatus(refusal: AuthRefusal): ProbeStatus {
  const { count, reason, message } = refusal;
  const again = timestamp(nextAttemptAt(refusal));
  const advice = `attempts so far: ${count}; the next one is at ${again}, or when the Secret changes`;
  return { ok: false, reason, message: `${message} (${advice})` };
}

/**
 * The last refusal of a credential that is known: that of this replica, or one that another replica has recorded. It is
 * over where another replica has logged in since.
 */
export function lastRefusal(
  object: unknown,
  own: AuthRefusal | undefined,
  version: string,
): AuthRefusal | undefined {
  const recorded = readRefusal(object);
  const known = [own, recorded].filter((refusal) => refusal?.version === version);
  const last = known.reduce(laterRefusal, undefined);
  const isOver = last !== undefined && authReadySince(object) > last.time;
  return isOver ? undefined : last;
}

/** The later one of two refusals. */
const laterRefusal = (
  one: AuthRefusal | undefined,
  other: AuthRefusal | undefined,
): AuthRefusal | undefined => ((other?.time ?? 0) >= (one?.time ?? 0) ? (other ?? one) : one);

/** Since when the status says that the credential is accepted, in milliseconds since 1970; 0 where it does not. */
function authReadySince(object: unknown): number {
  const auth = readConditions(object).find(({ type }) => type === "AuthReady");
  return auth?.status === "True" ? Date.parse(auth.lastTransitionTime) || 0 : 0;
}

function readRefusal(object: unknown): AuthRefusal | undefined {
  const found = property(property(object, "status"), "authProbe");
  const text = (key: string): string => String(property(found, key) ?? "");
  const [count, time] = [Number(property(found, "count")), Date.parse(text("time"))];
  if (!(count >= 1) || Number.isNaN(time)) return undefined;
  return {
    version: text("version"),
    count,
    time,
    reason: text("reason"),
    message: text("message"),
  };
}

/** A refusal in the form of a Connector's status, the reverse of `readRefusal`. */
export const formatRefusal = (refusal: AuthRefusal): object => ({
  ...refusal,
  time: new Date(refusal.time).toISOString(),
});
