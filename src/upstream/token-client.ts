import { promisify } from "node:util";
import { brotliDecompress, gunzip, inflate, inflateRaw } from "node:zlib";
import type { Credential } from "../connector/credential.ts";
import { parseJson, property } from "../connector/document.ts";
import { errorCode } from "../error-code.ts";
import { userAgent } from "../version.ts";
import type { AddressGuard } from "./address-guard.ts";
import { fetchResponse } from "./fetch-response.ts";
import type { HttpRequest, SendRequest } from "./http-client/http-exchange.ts";
import { parseLocation } from "./location.ts";
import type { LoginVerdict } from "./login-holds.ts";
import { retryDelayMs } from "./retry-after.ts";
import { UpstreamError, unreachable } from "./upstream-error.ts";

/** Where a registry's tokens come from: the `realm` and `service` of its Bearer challenge. */
export interface TokenServer {
  readonly realm: URL;
  readonly service: string | undefined;
}

/** What a token is asked for with, and by which connections. */
export interface TokenRequest extends TokenServer {
  /** As the distribution token protocol has them: `repository:app:pull`. */
  readonly scopes: readonly string[];
  /** Undefined for an anonymous token. */
  readonly credential: Credential | undefined;
  readonly send: SendRequest;
  /** Says whether clients may hear why the token server can't be reached; they may where there is none. */
  readonly guard?: Pick<AddressGuard, "isConcealed">;
}

/** A registry token. */
export interface UpstreamToken {
  readonly value: string;
  /** Seconds from now; 60 where the server does not say (distribution, "Token Response Fields"). */
  readonly lifetimeSeconds: number;
}

/** Of a response, before and after its content codings are undone. */
const maxBodyBytes = 256 * 1024;
/** No registry reads a header of more than this. */
const maxTokenBytes = 64 * 1024;
const maxRedirects = 3;
const defaultLifetimeSeconds = 60;
/** A token server that is started when it is asked takes its time. */
const timeoutMs = 60_000;
/** How long it may take to say whether it accepts a login. */
const judgeTimeoutMs = 15_000;

/**
 * Asks a token server for a token: GET with Basic, the form that every one of them knows; for an identity token POST, as
 * OAuth 2.0 has it (distribution, "OAuth2 Token Authentication"). Redirects are followed within the origin of the realm,
 * since the credential goes along. Compressed answers are read, whatever was asked.
 * @param signal ends the request
 * @throws UpstreamError; AuthenticationFailed where the account is refused, AccessDenied where just these scopes are
 */
export async function fetchToken(
  tokenRequest: TokenRequest,
  signal?: AbortSignal,
): Promise<UpstreamToken> {
  const response = await ask(tokenRequest, signal);
  if (response.status !== 200) {
    throw tokenRefusal(tokenRequest, response.status, response.retryAfterMs);
  }
  const { body = tooLong } = response;
  const token = "text" in body ? parseToken(body.text) : undefined;
  const server = `the token server ${tokenRequest.realm.host}`;
  if (token === undefined) {
    const problem = "problem" in body ? body.problem : "without a token";
    throw new UpstreamError("AnswerInvalid", `${server} answered 200 ${problem}`);
  }
  const { length } = token.value;
  if (length > maxTokenBytes) {
    const message = `${server} answered with a token of ${length} bytes; ${maxTokenBytes} are the most`;
    throw new UpstreamError("AnswerInvalid", message);
  }
  return token;
}

/** A body with its content codings undone, or why that is not possible, as a sentence goes on. */
type DecodedBody = { readonly text: string } | { readonly problem: string };

const tooLong: DecodedBody = { problem: "with more than 256 KiB" };

interface TokenResponse {
  readonly status: number;
  /** The body of a 200; undefined where it is too long. */
  readonly body: DecodedBody | undefined;
  /** How long a busy server asks to be left alone. */
  readonly retryAfterMs: number | undefined;
}

/** @throws UpstreamError */
async function ask(
  tokenRequest: TokenRequest,
  until: AbortSignal | undefined,
): Promise<TokenResponse> {
  const { realm, send, guard } = tokenRequest;
  const limit = AbortSignal.timeout(timeoutMs);
  const signal = until === undefined ? limit : AbortSignal.any([until, limit]);
  try {
    const { first, ...request } = loginRequest(tokenRequest);
    let url = first;
    for (let redirects = 0; ; redirects += 1) {
      const { status, headers, body } = await fetchResponse(
        { ...request, url },
        { send, signal, maxBodyBytes: (head) => (head.status === 200 ? maxBodyBytes : undefined) },
      );
      const followed = request.method === "GET" ? redirectStatuses : postRedirectStatuses;
      if (followed.has(status) && headers.location !== undefined) {
        url = redirected(url, status, headers.location, redirects);
        continue;
      }
      return {
        status,
        body: body && (await decode(body, headers["content-encoding"])),
        retryAfterMs: retryDelayMs(status, headers, Date.now()),
      };
    }
  } catch (error) {
    const isConcealed = guard?.isConcealed(realm);
    throw unreachable(`the token server ${realm.host}`, error, isConcealed);
  }
}

/** All of them lead a GET to another GET (RFC 9110, section 15.4). */
const redirectStatuses: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** These alone keep the method and the body of a POST. */
const postRedirectStatuses: ReadonlySet<number> = new Set([307, 308]);

/**
 * Where a redirect leads.
 * @param redirects how many were followed before
 * @throws UpstreamError where it must not be followed
 */
function redirected(from: URL, status: number, location: string, redirects: number): URL {
  const server = `the token server ${from.host}`;
  const url = parseLocation(location, from);
  if (
    url === undefined ||
    url.origin !== from.origin ||
    url.username !== "" ||
    url.password !== ""
  ) {
    const message = `${server} answered ${status}, a redirect that does not stay at ${from.origin}`;
    const detail = "a login is sent to no other host, port or scheme than the registry has named";
    throw new UpstreamError("AnswerInvalid", message, { detail });
  }
  if (redirects >= maxRedirects) {
    const message = `${server} redirected ${redirects + 1} times; ${maxRedirects} are the most`;
    throw new UpstreamError("AnswerInvalid", message);
  }
  return url;
}

/** How a token server is asked. */
interface LoginRequest extends Pick<HttpRequest, "method" | "headers" | "body"> {
  /** Its URL before any redirect. */
  readonly first: URL;
}

function loginRequest(tokenRequest: TokenRequest): LoginRequest {
  const { realm, service, scopes, credential } = tokenRequest;
  const headers = { "user-agent": userAgent };
  if (credential?.kind !== "identityToken") {
    const authorization = credential && basicAuthorization(credential);
    return {
      method: "GET",
      first: tokenUrl(tokenRequest),
      headers: authorization === undefined ? headers : { ...headers, authorization },
    };
  }
  const form = new URLSearchParams({
    grant_type: "refresh_token",
    refresh_token: credential.password,
    client_id: clientId,
    scope: scopes.join(" "),
    ...(service === undefined ? {} : { service }),
  });
  return {
    method: "POST",
    first: realm,
    headers: { ...headers, "content-type": "application/x-www-form-urlencoded" },
    body: Buffer.from(form.toString()),
  };
}

const clientId = "oci-connector";

function tokenUrl({ realm, service, scopes, credential }: TokenRequest): URL {
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set("service", service);
  for (const scope of scopes) url.searchParams.append("scope", scope);
  if (credential !== undefined) url.searchParams.set("account", credential.username);
  url.searchParams.set("client_id", clientId);
  return url;
}

/** The Authorization header of RFC 7617, with user and password in UTF-8. */
export const basicAuthorization = ({ username, password }: Credential): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;

type Decode = (bytes: Buffer) => Promise<Buffer>;

const limit = { maxOutputLength: maxBodyBytes };
const decodeGzip: Decode = (bytes) => promisify(gunzip)(bytes, limit);
/** Some servers leave out the zlib wrapper (RFC 9110, section 8.4.1.2), which begins with the method 8. */
const decodeDeflate: Decode = (bytes) =>
  promisify(((bytes[0] ?? 0) & 0x0f) === 8 ? inflate : inflateRaw)(bytes, limit);

/** By the name of a content coding, in lower case (RFC 9110, section 8.4.1). */
const decoders: ReadonlyMap<string, Decode> = new Map([
  ["identity", async (bytes) => bytes],
  ["gzip", decodeGzip],
  ["x-gzip", decodeGzip],
  ["deflate", decodeDeflate],
  ["br", (bytes) => promisify(brotliDecompress)(bytes, limit)],
]);
/** More than one coding is unusual, and each is an occasion to grow. */
const maxCodings = 2;

/**
 * Undoes the content codings of a body.
 * @param encoding the Content-Encoding, whose last coding was applied last
 */
async function decode(body: Buffer, encoding = ""): Promise<DecodedBody> {
  const codings = encoding
    .split(",")
    .map((coding) => coding.trim().toLowerCase())
    .filter((coding) => coding !== "");
  if (codings.length > maxCodings) return { problem: "in more than two content codings" };
  let decoded = body;
  for (const coding of codings.toReversed()) {
    const decoder = decoders.get(coding);
    if (decoder === undefined) {
      return { problem: "in a content coding that is not known; gzip, deflate and br are" };
    }
    try {
      decoded = await decoder(decoded);
    } catch (error) {
      const isTooLong = errorCode(error) === "ERR_BUFFER_TOO_LARGE";
      return {
        problem: isTooLong // the error itself may quote the body
          ? "with more than 256 KiB, once it is decompressed"
          : "with a body that is not in the content coding that it names",
      };
    }
  }
  return { text: new TextDecoder().decode(decoded) }; // without a byte order mark
}

/** @returns undefined for anything but a token */
function parseToken(text: string): UpstreamToken | undefined {
  const body = parseJson(text);
  const value = property(body, "token") || property(body, "access_token"); // ACR sends the second alone
  if (typeof value !== "string" || !/^[\x21-\x7e]+$/.test(value)) return undefined;
  const lifetimeSeconds = Number(property(body, "expires_in") ?? defaultLifetimeSeconds);
  return { value, lifetimeSeconds: lifetimeSeconds > 0 ? lifetimeSeconds : defaultLifetimeSeconds };
}

/** Sends a login to a token server by asking for a token without scopes. */
export async function judgeTokenLogin(tokenRequest: TokenRequest): Promise<LoginVerdict> {
  try {
    const until = AbortSignal.timeout(judgeTimeoutMs);
    const { status } = await ask({ ...tokenRequest, scopes: [] }, until);
    if (status === 200) return "accepted";
    return status === 401 || status === 403 ? "refused" : "unknown"; // GitLab's answers 403 to a wrong password
  } catch (error) {
    if (error instanceof UpstreamError) return "unknown";
    throw error;
  }
}

/**
 * What it means that a token server has answered a request for a token with another status than 200.
 * @param retryAfterMs how long it asks to be left alone
 */
export function tokenRefusal(
  { realm, credential }: TokenRequest,
  status: number,
  retryAfterMs?: number,
): UpstreamError {
  const server = `the token server ${realm.host}`;
  if (status === 429 || status >= 500) {
    return new UpstreamError("ConnectionFailed", `${server} answered ${status}`, { retryAfterMs });
  }
  // 400 is what Quay says to scopes that it does not know.
  if (status === 400 || status === 401 || status === 403) {
    const fault = status === 401 ? "AuthenticationFailed" : "AccessDenied";
    return new UpstreamError(fault, `${server} refused the connector's login (${status})`, {
      detail: refusalDetail(credential),
    });
  }
  const message = `${server} answered ${status} instead of a token`;
  const isForeign = credential?.kind === "identityToken" && (status === 404 || status === 405);
  const detail =
    "it may take no identity tokens (POST, as in OAuth 2.0): use a user and a password";
  return new UpstreamError("AnswerInvalid", message, isForeign ? { detail } : {});
}

function refusalDetail(credential: Credential | undefined): string {
  if (credential === undefined) {
    return "the registry requires a login and the connector has none: set its spec.auth.secretRef";
  }
  return credential.kind === "identityToken"
    ? "check whether the identity token in the connector's Secret has expired, and what its account may do"
    : "check the username and the password in the connector's Secret, or its identity, and what that account may do";
}
