import type { Connector } from "../connector/connector.ts";
import { property } from "../connector/document.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { Probe } from "../upstream/probe.ts";
import { readConditions, timestamp } from "./conditions.ts";

/** What is known of a registry. */
export interface ProbeOutcome {
  readonly liveness: Told;
  /** Where liveness is not ok, nobody has looked. */
  readonly auth: Told;
  /** The registry does not accept the credential that the connector has. */
  readonly refusal: AuthRefusal | undefined;
}

export interface ProbeSubject {
  readonly connector: Connector;
  readonly secrets: UpstreamSecrets;
  /** The Connector, with the status that it has. */
  readonly object: KubeObject;
  /** Differs where another login may succeed: after each change of the spec or of the Secret. */
  readonly loginVersion: string;
  /** What was found out before; undefined where it is time to ask the registry again. */
  readonly known: ProbeOutcome | undefined;
  /** What we were told of a refusal before, whether it is time or not. */
  readonly refusal: AuthRefusal | undefined;
}

export interface ProbeOutcomeOptions {
  readonly probe: Probe;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly signal: AbortSignal;
}

/**
 * Finds out about a registry. A credential that was refused is kept from it for a while: then it is
 * asked without one, which shows whether it is there.
 */
export async function probeOutcome(
  subject: ProbeSubject,
  { probe, now, signal }: ProbeOutcomeOptions,
): Promise<ProbeOutcome> {
  const { connector, secrets, loginVersion, known } = subject;
  const refusal = lastRefusal(subject.object, subject.refusal, loginVersion);
  if (known !== undefined && refusal !== undefined) {
    return { ...known, auth: tellRefusal(refusal), refusal };
  }
  // Another replica may have logged in where we were refused.
  if (known !== undefined && known.refusal === undefined) return known;
  if (refusal !== undefined && now() < triedAgainAt(refusal)) {
    const { liveness } = await probe(connector, { ...secrets, credential: undefined }, signal);
    return { liveness, auth: tellRefusal(refusal), refusal };
  }
  const result = await probe(connector, secrets, signal);
  if (!result.liveness.ok) return { ...result, refusal };
  if (secrets.credential === undefined || !isRefusal(result.auth)) {
    return { ...result, refusal: undefined };
  }
  const { reason, message } = result.auth;
  const count = (refusal?.count ?? 0) + 1;
  const refused = { version: loginVersion, count, time: now(), reason, message };
  return { ...result, auth: tellRefusal(refused), refusal: refused };
}

/** The reason and the message of a condition. */
export interface Told {
  readonly ok: boolean;
  readonly reason: string;
  readonly message: string;
}

/**
 * A registry has refused a credential. It is kept in the Connector's status (authProbe) as long as
 * that credential is the Connector's, so that no other replica, and no restart, brings the next
 * attempt forward: many registries lock an account after a few.
 */
export interface AuthRefusal {
  /** Of which spec and which Secret. */
  readonly version: string;
  /** How often it was refused in a row. */
  readonly count: number;
  /** When it was last tried, in milliseconds since the epoch. */
  readonly time: number;
  readonly reason: string;
  readonly message: string;
}

const firstHoldMs = 5 * 60_000;

const longestHoldMs = 60 * 60_000;

/** When the credential may be tried again: after five minutes, then after twice as long each time, up to an hour. */
export const triedAgainAt = ({ count, time }: AuthRefusal): number =>
  time + Math.min(firstHoldMs * 2 ** Math.min(count - 1, 10), longestHoldMs);

/** Whatever else fails can't lock an account. Some token servers answer 403 to a wrong password (GitLab's). */
export const isRefusal = ({ reason }: Told): boolean =>
  reason === "AuthenticationFailed" || reason === "AccessDenied";

export function tellRefusal(refusal: AuthRefusal): Told {
  const { count, reason, message } = refusal;
  const again = timestamp(triedAgainAt(refusal));
  const advice = `attempts so far: ${count}; the next one is at ${again}, or when the Secret changes`;
  return { ok: false, reason, message: `${message} (${advice})` };
}

/**
 * The last refusal of a credential that is known: ours, or one that another replica has recorded. One
 * of ours is over where another replica has logged in since.
 */
export function lastRefusal(
  object: unknown,
  own: AuthRefusal | undefined,
  version: string,
): AuthRefusal | undefined {
  const recorded = readRefusal(object);
  const known = [own, recorded].filter((refusal) => refusal?.version === version);
  const last = known.reduce(later, undefined);
  const isOver = last !== undefined && readySince(object) > last.time;
  return isOver ? undefined : last;
}

const later = (
  one: AuthRefusal | undefined,
  other: AuthRefusal | undefined,
): AuthRefusal | undefined => ((other?.time ?? 0) >= (one?.time ?? 0) ? (other ?? one) : one);

/** Since when others say that the credential is accepted; 0 where they don't. */
function readySince(object: unknown): number {
  const auth = readConditions(object).find(({ type }) => type === "AuthReady");
  return auth?.status === "True" ? Date.parse(auth.lastTransitionTime) || 0 : 0;
}

function readRefusal(object: unknown): AuthRefusal | undefined {
  const found = property(property(object, "status"), "authProbe");
  const text = (key: string): string => String(property(found, key) ?? "");
  const [count, time] = [Number(property(found, "count")), Date.parse(text("time"))];
  if (!(count >= 1) || Number.isNaN(time)) return undefined;
  return {
    ...{ version: text("version"), count, time },
    ...{ reason: text("reason"), message: text("message") },
  };
}

/** As it stands in a status. */
export const writtenRefusal = (refusal: AuthRefusal): object => ({
  ...refusal,
  time: new Date(refusal.time).toISOString(),
});
