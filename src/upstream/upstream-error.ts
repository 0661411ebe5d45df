/**
 * What keeps a registry from being used.
 * - AddressRefused: the address guard allows no connection there
 * - ConnectionFailed: it, or its token server, can't be reached, or answers with an error of its own
 * - CertificateInvalid: its certificate is not trusted, or not its own
 * - AnswerInvalid: it answers, and not as the protocol says
 * - AuthenticationFailed: it does not accept the credential, or wants one and there is none
 * - AccessDenied: it accepts the credential, and not for what was asked
 * - AuthRealmRejected: it sends to a token server that gets no credential
 * - AuthMethodUnknown: it wants a login that is neither Basic nor Bearer
 */
export type UpstreamFault =
  | "AddressRefused"
  | "ConnectionFailed"
  | "CertificateInvalid"
  | "AnswerInvalid"
  | "AuthenticationFailed"
  | "AccessDenied"
  | "AuthRealmRejected"
  | "AuthMethodUnknown";

export interface UpstreamErrorOptions extends ErrorOptions {
  readonly detail?: string;
  readonly retryAfter?: number | undefined;
}

/** A registry can't be used now, as it is configured. The message is fit for clients and for a connector's status. */
export class UpstreamError extends Error {
  override readonly name = "UpstreamError";
  readonly fault: UpstreamFault;
  /** What to do about it. */
  readonly detail: string | undefined;
  /** Milliseconds after which it may be asked again, where it has said so. */
  readonly retryAfter: number | undefined;

  constructor(
    fault: UpstreamFault,
    message: string,
    { detail, retryAfter, ...options }: UpstreamErrorOptions = {},
  ) {
    super(message, options);
    this.fault = fault;
    this.detail = detail;
    this.retryAfter = retryAfter;
  }
}
