import type { Connector } from "../connector/connector.ts";
import type { UpstreamSecrets } from "../connector/surroundings.ts";

/**
 * What keeps a registry from being used.
 * - AddressRefused: the address guard allows no connection there
 * - ConnectionFailed: it, or its token server, can't be reached or answers with an error of its own
 * - CertificateInvalid: its certificate is not trusted, or for another name
 * - NotARegistry: it answers, and is no registry of the OCI distribution protocol
 * - AnswerInvalid: it, or its token server, answers otherwise than the protocol says
 * - AuthenticationFailed: it does not accept the credential, or wants one and there is none
 * - AuthRealmRejected: it sends to a token server that gets no credential
 * - AuthMethodUnknown: it wants a login that is neither Basic nor Bearer
 * - AccessDenied: it does not allow what the probe asks for
 * - ProbeFailed: by a mistake of ours, which the log tells
 */
export type ProbeFailure =
  | "AddressRefused"
  | "ConnectionFailed"
  | "CertificateInvalid"
  | "NotARegistry"
  | "AnswerInvalid"
  | "AuthenticationFailed"
  | "AuthRealmRejected"
  | "AuthMethodUnknown"
  | "AccessDenied"
  | "ProbeFailed";

/** The reason and the message of a condition. The message never names a Secret's value. */
export type Probed =
  | { readonly ok: true; readonly reason: string; readonly message: string }
  | { readonly ok: false; readonly reason: ProbeFailure; readonly message: string };

export interface ProbeResult {
  readonly liveness: Probed;
  /** Where liveness is not ok, it is not looked at. */
  readonly auth: Probed;
}

/**
 * Asks a registry whether it is there, and logs in to it once at most. It answers within some seconds,
 * and throws nothing that a person could mend.
 */
export type Probe = (
  connector: Connector,
  secrets: UpstreamSecrets,
  signal: AbortSignal,
) => Promise<ProbeResult>;
