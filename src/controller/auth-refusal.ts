import { property } from "../connector/document.ts";
import { timestamp } from "./clock.ts";
import { readConditions } from "./conditions.ts";

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
