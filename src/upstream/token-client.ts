import { type Dispatcher, request } from "undici";
import type { Credential } from "../connector/credential.ts";
import { parseJson, property } from "../connector/document.ts";
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
  readonly dispatcher: Dispatcher;
}

/** A registry token. */
export interface UpstreamToken {
  readonly value: string;
  /** Seconds from now; 60 where the server does not say (distribution, "Token Response Fields"). */
  readonly lifetimeSeconds: number;
}

const maxResponseBytes = 128 * 1024;
const defaultLifetimeSeconds = 60;
const timeoutMs = 15_000;

/**
 * Asks a token server for a token: GET with Basic, the form that every one of them knows. Redirects
 * are not followed, since the password would go along.
 * @throws UpstreamError; AuthenticationFailed where the account is refused, AccessDenied where just these scopes are
 */
export async function fetchToken(tokenRequest: TokenRequest): Promise<UpstreamToken> {
  const response = await send(tokenRequest);
  if (response.status !== 200) throw refusal(tokenRequest, response);
  const token = parseToken(response.text);
  if (token === undefined) {
    const message = `the token server ${tokenRequest.realm.host} answered 200 without a token`;
    throw new UpstreamError("AnswerInvalid", message);
  }
  return token;
}

interface TokenResponse {
  readonly status: number;
  /** The body; undefined where it is too long. */
  readonly text: string | undefined;
  /** How long a busy server asks to be left alone. */
  readonly retryAfterMs: number | undefined;
}

async function send(tokenRequest: TokenRequest): Promise<TokenResponse> {
  const { realm, dispatcher, credential } = tokenRequest;
  try {
    const { statusCode, headers, body } = await request(tokenUrl(tokenRequest), {
      dispatcher,
      headers: credential === undefined ? {} : { authorization: basicAuthorization(credential) },
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
      signal: AbortSignal.timeout(timeoutMs),
    });
    const text = await readText(body, maxResponseBytes);
    return {
      status: statusCode,
      text,
      retryAfterMs: retryDelayMs(statusCode, headers, Date.now()),
    };
  } catch (error) {
    throw unreachable(`the token server ${realm.host}`, error);
  }
}

function tokenUrl({ realm, service, scopes, credential }: TokenRequest): URL {
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set("service", service);
  for (const scope of scopes) url.searchParams.append("scope", scope);
  if (credential !== undefined) url.searchParams.set("account", credential.username);
  url.searchParams.set("client_id", "oci-connector");
  return url;
}

/** The Authorization header of RFC 7617, with user and password in UTF-8. */
export const basicAuthorization = ({ username, password }: Credential): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;

/** @returns undefined for a longer body */
async function readText(
  body: AsyncIterable<Buffer>,
  maxBytes: number,
): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes) return undefined; // leaving the loop ends the connection
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** @returns undefined for anything but a token */
function parseToken(text: string | undefined): UpstreamToken | undefined {
  const body = parseJson(text);
  const value = property(body, "token") || property(body, "access_token"); // ACR sends the second alone
  if (typeof value !== "string" || !/^[\x21-\x7e]+$/.test(value)) return undefined;
  const lifetimeSeconds = Number(property(body, "expires_in") ?? defaultLifetimeSeconds);
  return { value, lifetimeSeconds: lifetimeSeconds > 0 ? lifetimeSeconds : defaultLifetimeSeconds };
}

function refusal(
  { realm, credential }: TokenRequest,
  { status, retryAfterMs }: TokenResponse,
): UpstreamError {
  const server = `the token server ${realm.host}`;
  if (status === 429 || status >= 500) {
    return new UpstreamError("ConnectionFailed", `${server} answered ${status}`, { retryAfterMs });
  }
  // 400 is what Quay says to scopes that it does not know.
  if (status === 400 || status === 401 || status === 403) {
    const fault = status === 401 ? "AuthenticationFailed" : "AccessDenied";
    return new UpstreamError(fault, `${server} refused the connector's login (${status})`, {
      detail:
        credential === undefined
          ? "the registry requires a login and the connector has none: set its spec.auth.secretRef"
          : "check the username and the password in the connector's Secret, and what that account may do",
    });
  }
  return new UpstreamError("AnswerInvalid", `${server} answered ${status} instead of a token`);
}
