import type { Connector } from "../connector/connector.ts";
import type { UpstreamSecrets } from "../connector/platform.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { Probe } from "../upstream/probe.ts";
import {
  type AuthRefusal,
  isRefusal,
  lastRefusal,
  type Told,
  tellRefusal,
  triedAgainAt,
} from "./auth-refusal.ts";

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
