import { AddressRefused } from "./address-guard.ts";

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
  readonly retryAfterMs?: number | undefined;
}

/** A registry can't be used now, as it is configured. The message is fit for clients and for a connector's status. */
export class UpstreamError extends Error {
  override readonly name = "UpstreamError";
  readonly fault: UpstreamFault;
  /** What to do about it. */
  readonly detail: string | undefined;
  /** Milliseconds after which it may be asked again, where it has said so. */
  readonly retryAfterMs: number | undefined;

  constructor(
    fault: UpstreamFault,
    message: string,
    { detail, retryAfterMs, ...options }: UpstreamErrorOptions = {},
  ) {
    super(message, options);
    this.fault = fault;
    this.detail = detail;
    this.retryAfterMs = retryAfterMs;
  }
}

const sentences: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nothing listens there",
  ENOTFOUND: "its name is unknown to DNS",
  EAI_AGAIN: "DNS does not answer",
  ETIMEDOUT: "it does not answer",
  EHOSTUNREACH: "there is no route to it",
  ENETUNREACH: "there is no route to it",
  ECONNRESET: "it closed the connection",
  EPIPE: "it closed the connection",
  UND_ERR_SOCKET: "it closed the connection",
  UND_ERR_CONNECT_TIMEOUT: "it does not answer",
  ECONNECT_TIMEOUT: "it does not answer",
  UND_ERR_HEADERS_TIMEOUT: "it accepted the request but does not answer",
  UND_ERR_BODY_TIMEOUT: "it stopped in the middle of its response",
  UND_ERR_HEADERS_OVERFLOW: "the head of its response is longer than 64 KiB",
  HPE_HEADER_OVERFLOW: "the head of its response is longer than 64 KiB",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another name",
  CERT_HAS_EXPIRED: "its certificate has expired",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is self-signed",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate is signed by an authority that is not trusted",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its certificate is signed by an authority that is not trusted",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    "its certificate is signed by an authority that is not trusted",
};

/** What another trusted authority may mend; an expired certificate, or one for another name, it does not. */
const untrusted = /SELF_SIGNED|^UNABLE_TO/;

const certificateCodes = /CERT|SIGNATURE/;

/**
 * The one place where errors of sockets, DNS, TLS and HTTP clients become words for people.
 * @param who "the registry https://harbor.test"
 */
export function unreachable(who: string, error: unknown): UpstreamError {
  if (error instanceof UpstreamError) return error;
  if (error instanceof AddressRefused) return new UpstreamError("AddressRefused", error.message);
  const code = codeOf(error);
  const why = sentences[code] ?? (code === "" ? "the connection failed" : code);
  const detail = untrusted.test(code)
    ? "name the Secret with the registry's CA certificate in the connector's spec.caCertSecretRef"
    : "this is between the proxy and the registry; the push or pull can be tried again";
  const fault = certificateCodes.test(code) ? "CertificateInvalid" : "ConnectionFailed";
  return new UpstreamError(fault, `${who} can't be reached: ${why}`, { cause: error, detail });
}

/** Whether a connection was closed by its other side, before an answer. */
export const wasClosed = (error: unknown): boolean => closedCodes.has(codeOf(error));

const closedCodes: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE", "UND_ERR_SOCKET"]);

/** The first code among an error and its causes; several tries at one host are one AggregateError. */
function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return "";
  if (error instanceof AggregateError) return codeOf(error.errors[0]);
  if (error.name === "TimeoutError") return "ETIMEDOUT"; // of AbortSignal.timeout
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  return code !== "" ? code : codeOf(error.cause);
}
