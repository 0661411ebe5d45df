/** The login of a connector that logs in with an identity, as far as a probe of its registry needs one. */
import type { Connector } from "../connector/connector.ts";
import type { Credential } from "../connector/credential.ts";
import { property } from "../connector/document.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import { type ConditionState, good, readConditions, timestamp, unknown } from "./conditions.ts";

/** Why an identity gives no login, as a condition says it. */
export interface IdentityRefusal {
  readonly ok: false;
  readonly reason: string;
  readonly message: string;
}

/** A login that an identity has given. Times are in milliseconds since 1970. */
export interface ObtainedLogin {
  readonly credential: Credential;
  readonly obtainedAt: number;
  readonly expiresAt: number;
}

/** The logins of connectors with an identity. */
export interface IdentityLogins {
  /**
   * Looks whether the identity of a connector may be used.
   * @returns a version that differs where a login of before is not good any more
   * @throws Unavailable
   */
  check(
    connector: Connector,
    secrets: UpstreamSecrets,
  ): Promise<{ readonly ok: true; readonly version: string } | IdentityRefusal>;
  /** The login that this process has. It does not count as used. */
  current(connector: Connector, secrets: UpstreamSecrets): ObtainedLogin | undefined;
  /** Makes a login. @throws Unavailable */
  obtain(
    connector: Connector,
    secrets: UpstreamSecrets,
  ): Promise<{ readonly ok: true; readonly login: ObtainedLogin } | IdentityRefusal>;
}

/**
 * When a login was last obtained. It stands in the Connector's status (identityLogin), so that neither another replica nor
 * a restart makes one more: the probe is no use of a login.
 */
export interface LoginRecord {
  /** Which spec and which identity it is about. */
  readonly version: string;
  /** In milliseconds since 1970. */
  readonly obtainedAt: number;
  readonly expiresAt: number;
}

/** The record in the status of a Connector, where it is about this version. */
export function readLoginRecord(object: unknown, version: string): LoginRecord | undefined {
  const found = property(property(object, "status"), "identityLogin");
  const time = (key: string): number => Date.parse(String(property(found, key)));
  const [obtainedAt, expiresAt] = [time("obtained"), time("expires")];
  const isRecord = property(found, "version") === version && !Number.isNaN(obtainedAt);
  return isRecord && !Number.isNaN(expiresAt) ? { version, obtainedAt, expiresAt } : undefined;
}

/** A record in the form of a Connector's status, the reverse of {@link readLoginRecord}. */
export const formatLoginRecord = ({ version, obtainedAt, expiresAt }: LoginRecord): object => ({
  version,
  obtained: timestamp(obtainedAt),
  expires: timestamp(expiresAt),
});

/** The state of SecretReady of a connector whose identity may be used. */
export const loginState = (record: LoginRecord | undefined): ConditionState =>
  record === undefined
    ? unknown("Probing", "the login is obtained when the registry is probed, which is pending")
    : good("Obtained", obtainedMessage(record));

const obtainedMessage = ({ obtainedAt, expiresAt }: LoginRecord): string =>
  `a login was obtained at ${timestamp(obtainedAt)}, which ends at ${timestamp(expiresAt)}; ` +
  "the proxies obtain and renew their own while they are used";

/** What a probe logs in with. */
export type ProbeLogin =
  /** Without a credential, what the status says of the login stays. */
  | { readonly ok: true; readonly credential: Credential | undefined; readonly record: LoginRecord }
  | IdentityRefusal;

export interface ProbeLoginSubject {
  readonly connector: Connector;
  readonly secrets: UpstreamSecrets;
  /** The Connector with its status. */
  readonly object: unknown;
  readonly loginVersion: string;
}

/**
 * The login for a probe: one that lives here; else none, where one was obtained before for this spec and this identity and
 * the registry has taken it; else a new one.
 * @throws Unavailable
 */
export async function loginForProbe(
  { connector, secrets, object, loginVersion: version }: ProbeLoginSubject,
  logins: IdentityLogins,
): Promise<ProbeLogin> {
  const recorded = readLoginRecord(object, version);
  const current = recorded && logins.current(connector, secrets);
  if (current !== undefined) return probeLogin(current, version);
  if (recorded !== undefined && acceptedAuth(object) !== undefined) {
    return { ok: true, credential: undefined, record: recorded };
  }
  const obtained = await logins.obtain(connector, secrets);
  return obtained.ok ? probeLogin(obtained.login, version) : obtained;
}

const probeLogin = (
  { credential, obtainedAt, expiresAt }: ObtainedLogin,
  version: string,
): ProbeLogin => ({ ok: true, credential, record: { version, obtainedAt, expiresAt } });

/** What the status says of a login that the registry has taken; undefined where it has not. */
export const acceptedAuth = (object: unknown): ConditionState | undefined =>
  readConditions(object).find(({ type, status }) => type === "AuthReady" && status === "True");
