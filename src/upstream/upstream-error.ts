import { AddressRefused } from "./address-guard.ts";
import { EgressError, type EgressErrorCode } from "./http-client/egress-tunnel.ts";
import { type TlsFailure, tlsFailure } from "./tls-failure.ts";

/**
 * Why a registry can't be used.
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

/** What an {@link UpstreamError} has beside its fault and its message. */
export interface UpstreamErrorOptions extends ErrorOptions {
  /** What to do about it. */
  readonly detail?: string;
  /** How long the registry, or its token server, asks to be left alone. */
  readonly retryAfterMs?: number | undefined;
  /** Whether the cause is for the log alone. */
  readonly isConcealed?: boolean;
}

/** A registry can't be used now, as it is configured. The message is fit for clients and for a connector's status. */
export class UpstreamError extends Error {
  override readonly name = "UpstreamError";
  readonly fault: UpstreamFault;
  /** What to do about it. */
  readonly detail: string | undefined;
  /** How long the registry, or its token server, asks to be left alone; undefined where it does not say. */
  readonly retryAfterMs: number | undefined;
  /** Whether message and detail do not say why, and only the log has the cause. */
  readonly isConcealed: boolean;

  constructor(
    fault: UpstreamFault,
    message: string,
    { detail, retryAfterMs, isConcealed = false, ...options }: UpstreamErrorOptions = {},
  ) {
    super(message, options);
    this.fault = fault;
    this.detail = detail;
    this.retryAfterMs = retryAfterMs;
    this.isConcealed = isConcealed;
  }
}

/** By the code of an error. */
const sentences: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nothing listens there",
  ENOTFOUND: "its name is unknown to DNS",
  EAI_AGAIN: "DNS does not answer",
  ETIMEDOUT: "it does not answer",
  EHOSTUNREACH: "there is no route to it",
  ENETUNREACH: "there is no route to it",
  ECONNRESET: "it closed the connection",
  EPIPE: "it closed the connection",
  CONNECTION_CLOSED: "it closed the connection",
  CONNECT_TIMEOUT: "it does not answer",
  HEADERS_TIMEOUT: "it accepted the request but does not answer",
  BODY_TIMEOUT: "it stopped in the middle of its response",
  LENGTH_MISMATCH: "its response has another length than it says",
  HEADERS_OVERFLOW: "the head of its response is longer than 64 KiB",
  HPE_HEADER_OVERFLOW: "the head of its response is longer than 64 KiB",
};

/** The code of `InvalidResponse`. */
const invalidResponse = "INVALID_RESPONSE";

const sendOneLength =
  "let the registry, or what stands before it, send one Content-Length, or chunks: in the answer to the content of an upload " +
  "even two equal ones can't be read";

/** What the parser of node:http (llhttp) can't read, by the codes of their errors. It goes on from "is not valid HTTP/1.1:". */
const unreadable: Readonly<Record<string, { readonly why: string; readonly detail?: string }>> = {
  HPE_UNEXPECTED_CONTENT_LENGTH: {
    why: "it has its Content-Length twice",
    detail: sendOneLength,
  },
  HPE_INVALID_CONTENT_LENGTH: {
    why: "its Content-Length is no number, is too large, or stands beside a Transfer-Encoding",
    detail: sendOneLength,
  },
  HPE_INVALID_TRANSFER_ENCODING: {
    why: "it has a Transfer-Encoding and a Content-Length",
    detail: sendOneLength,
  },
  HPE_INVALID_CHUNK_SIZE: { why: "a chunk begins without its size, or with one that is too large" },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: { why: "its chunks have too long extensions" },
  HPE_INVALID_CONSTANT: { why: "it begins with no status line" },
  HPE_INVALID_VERSION: { why: "it begins with no status line of HTTP/1.1" },
  HPE_INVALID_STATUS: { why: "its status is no number of three digits" },
  HPE_INVALID_HEADER_TOKEN: { why: "its head has a character that none may have" },
  HPE_LF_EXPECTED: { why: "a line of its head ends in CR alone" },
  HPE_CR_EXPECTED: { why: "a line of its head ends in LF alone" },
};

const tryAgain = "this is between the proxy and the registry; the push or pull can be tried again";

/** Codes that tell whether a host, a port or a filter is there. */
const connectCodes: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EACCES",
  "EPERM",
  "CONNECT_TIMEOUT",
]);

const concealedDetail =
  "it is at an internal address that the cluster's operator has not named in UPSTREAM_NETWORKS, so this text is the same for " +
  "a closed port, a filtered one and an address that connectors may not lead to; the log of the proxy, or of the controller, " +
  "has the cause. Where a registry redirects there, the connector's spec.params allowedRedirectHosts or allowedRealmHosts has to name the host";

/**
 * Makes an error for people of an error of a socket, DNS, TLS or an HTTP client. This is the one place for that.
 * @param who what could not be reached: "the registry https://harbor.test"
 * @param isConcealed whether nobody may hear why no connection was made; the cause is kept for the log
 * @returns the error itself, where it is an UpstreamError already
 */
export function unreachable(who: string, error: unknown, isConcealed = false): UpstreamError {
  if (error instanceof UpstreamError) return error;
  if (error instanceof EgressError) return egressFailure(who, error, isConcealed);
  const isRefused = error instanceof AddressRefused;
  const { code, message } = rootOf(error);
  if (isConcealed && (isRefused || connectCodes.has(code))) {
    const options = { cause: error, detail: concealedDetail, isConcealed };
    return new UpstreamError("ConnectionFailed", `${who} can't be reached`, options);
  }
  if (isRefused) return new UpstreamError("AddressRefused", error.message);
  const tls = tlsFailure(code, message);
  if (tls !== undefined) return failed("CertificateInvalid", who, error, tls);
  if (code === invalidResponse || code.startsWith("HPE_")) {
    const known = unreadable[code] ?? { why: message };
    const why = `its response is not valid HTTP/1.1: ${known.why}`;
    return failed("AnswerInvalid", who, error, { why, detail: known.detail });
  }
  const why = sentences[code] ?? (code === "" ? "the connection failed" : code);
  return failed("ConnectionFailed", who, error, { why, detail: undefined });
}

const answersToConnect: ReadonlySet<EgressErrorCode> = new Set([
  "EGRESS_REFUSED",
  "EGRESS_SILENT",
  "EGRESS_INVALID",
]);

/**
 * What a company's proxy says of a host tells whether the host is there. What is wrong between this process and the proxy
 * does not.
 */
function egressFailure(who: string, error: EgressError, isConcealed: boolean): UpstreamError {
  const { code, message, advice, cause } = error;
  if (isConcealed && answersToConnect.has(code)) {
    const options = { cause: error, detail: concealedDetail, isConcealed };
    return new UpstreamError("ConnectionFailed", `${who} can't be reached`, options);
  }
  const root = rootOf(cause);
  const why =
    code === "EGRESS_UNREACHABLE"
      ? `${message}: ${tlsFailure(root.code, root.message)?.why ?? sentences[root.code] ?? root.code}`
      : message;
  return failed("ConnectionFailed", who, error, { why, detail: advice });
}

function failed(
  fault: UpstreamFault,
  who: string,
  cause: unknown,
  { why, detail = tryAgain }: TlsFailure,
): UpstreamError {
  return new UpstreamError(fault, `${who} can't be reached: ${why}`, { cause, detail });
}

/** Whether the address guard is why a host was not connected to, also where clients don't hear that. */
export const isAddressRefused = (error: unknown): error is UpstreamError =>
  error instanceof UpstreamError &&
  (error.fault === "AddressRefused" || error.cause instanceof AddressRefused);

/** Whether a registry, or its token server, has refused the account, or what was asked for with it. */
export const isRefusal = (error: unknown): error is UpstreamError =>
  error instanceof UpstreamError &&
  (error.fault === "AuthenticationFailed" || error.fault === "AccessDenied");

/** Whether this is the error of a connection that its other side has closed. */
export const wasClosed = (error: unknown): boolean => closedCodes.has(rootOf(error).code);

const closedCodes: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE", "CONNECTION_CLOSED"]);

/**
 * The first code among an error and its causes, with the message of the error that has it. Several tries at one host are
 * one AggregateError, whose first error counts.
 */
function rootOf(error: unknown): { readonly code: string; readonly message: string } {
  if (!(error instanceof Error)) return { code: "", message: "" };
  if (error instanceof AggregateError) return rootOf(error.errors[0]);
  const { message } = error;
  if (error.name === "TimeoutError") return { code: "ETIMEDOUT", message }; // of AbortSignal.timeout
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  return code !== "" ? { code, message } : rootOf(error.cause);
}
