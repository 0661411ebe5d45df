/** Errors as registry clients get them. */
import type { ServerResponse } from "node:http";
import { parseJson, property } from "../connector/document.ts";
import { Unavailable } from "../connector/platform.ts";
import { UpstreamError } from "../upstream/upstream-error.ts";
import { BodyCut, WrongContent } from "./client-gone.ts";

/** Error codes of the OCI distribution specification 1.1, and the three that docker's registry adds for the server's side. */
export type RegistryErrorCode =
  | "BLOB_UNKNOWN"
  | "BLOB_UPLOAD_INVALID"
  | "BLOB_UPLOAD_UNKNOWN"
  | "DENIED"
  | "DIGEST_INVALID"
  | "MANIFEST_UNKNOWN"
  | "NAME_INVALID"
  | "NAME_UNKNOWN"
  | "SIZE_INVALID"
  | "TOOMANYREQUESTS"
  | "UNAUTHORIZED"
  | "UNAVAILABLE"
  | "UNKNOWN"
  | "UNSUPPORTED";

export interface RegistryErrorOptions extends ErrorOptions {
  /** What to do about it; clients show it where they show details. */
  readonly detail?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** An error whose message is meant for a registry client, and so for a person at a build's output. */
export class RegistryError extends Error {
  override readonly name = "RegistryError";
  readonly status: number;
  readonly code: RegistryErrorCode;
  readonly detail: string | undefined;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    code: RegistryErrorCode,
    message: string,
    options: RegistryErrorOptions = {},
  ) {
    super(message, options);
    this.status = status;
    this.code = code;
    this.detail = options.detail;
    this.headers = options.headers ?? {};
  }
}

/** 502: the registry, or a host that it redirected to, did not respond as the protocol has it. */
export const badGateway = (message: string, options?: RegistryErrorOptions): RegistryError =>
  new RegistryError(502, "UNKNOWN", message, options);

/** 503 with Retry-After: it may work in some seconds. */
export const serviceUnavailable = (
  message: string,
  options?: RegistryErrorOptions,
): RegistryError =>
  new RegistryError(503, "UNAVAILABLE", message, {
    ...options,
    headers: { "retry-after": "5", ...options?.headers },
  });

/** 403: somebody has to grant a right, or to correct the connector. Another attempt does not help. */
export const denied = (message: string, options?: RegistryErrorOptions): RegistryError =>
  new RegistryError(403, "DENIED", message, options);

/**
 * An error as clients get it where nothing of a response has gone out: one of ours, of our surroundings, or of the registry.
 * @returns undefined for any other, which is a fault of this program
 */
export function asRegistryError(error: unknown): RegistryError | undefined {
  if (error instanceof RegistryError) return error;
  if (error instanceof Unavailable) return serviceUnavailable(error.message, { cause: error });
  if (error instanceof WrongContent) {
    const detail =
      "its storage may be damaged, or something on the way changes it; if that stays, push the content again";
    return badGateway(error.message, { cause: error, detail });
  }
  if (error instanceof BodyCut) {
    const detail = "this is between the proxy and the registry; it can be tried again";
    return serviceUnavailable(error.message, { cause: error, detail });
  }
  if (!(error instanceof UpstreamError)) return undefined;
  const { fault, message, detail, cause, retryAfterMs } = error;
  const options = {
    cause,
    ...(detail === undefined ? {} : { detail }),
    ...(retryAfterMs ? { headers: { "retry-after": String(Math.ceil(retryAfterMs / 1000)) } } : {}),
  };
  switch (fault) {
    case "ConnectionFailed":
    case "CertificateInvalid":
      return serviceUnavailable(message, options);
    case "AnswerInvalid":
    case "AuthMethodUnknown":
      return badGateway(message, options);
    default:
      return denied(message, options);
  }
}

/** Whether an error becomes a 403: somebody lacks a right, or the registry refuses the connector's account. */
export const isForbidden = (error: unknown): boolean => asRegistryError(error)?.status === 403;

/** Docker's daemon looks for this header in the response to `/v2/`, a refusal included, to know what it talks to. */
export const apiVersion: Readonly<Record<string, string>> = {
  "docker-distribution-api-version": "registry/2.0",
};

/** The JSON body of an error, as the distribution specification has it ("Error Codes"). */
export const errorBody = ({
  code,
  message,
  detail,
}: {
  readonly code: string;
  readonly message: string;
  readonly detail?: string | undefined;
}): string =>
  JSON.stringify({
    errors: [detail === undefined ? { code, message } : { code, message, detail }],
  });

/** What a status line carries of a message. A refusal with the rules of a Role has some 300 characters. */
const maxPhraseLength = 512;

/**
 * A message as the phrase of a status line (RFC 9112, section 4), for clients that show a person nothing else: one line
 * of ASCII.
 */
export const reasonPhrase = (message: string): string =>
  message.replace(/[^\x20-\x7e]+/g, " ").slice(0, maxPhraseLength);

/** The code of the first error in a registry's error body; undefined where it has none. */
export function errorCodeIn(body: Buffer): string | undefined {
  const errors = property(parseJson(body.toString("utf8")), "errors");
  const code = Array.isArray(errors) ? property(errors[0], "code") : undefined;
  return typeof code === "string" && /^[A-Z_]{1,40}$/.test(code) ? code : undefined;
}

/** Responds with an error. HEAD gets the head alone. */
export function respondWithError(response: ServerResponse, error: RegistryError): void {
  const body = errorBody(error);
  response.writeHead(error.status, {
    ...apiVersion,
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    ...error.headers,
  });
  response.end(body);
}
