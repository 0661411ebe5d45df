/** One request of an exchange of tokens, and what is read of its response. */
import { parseJson, property } from "../connector/document.ts";
import { show } from "../connector/problem.ts";
import { LoginError } from "./login.ts";

/** A request that has a token in it. */
export interface ExchangeRequest {
  readonly method: "GET" | "POST";
  readonly url: URL;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

export interface ExchangeResponse {
  readonly status: number;
  /** The body; undefined where it is too long. */
  readonly text: string | undefined;
  /** How long a busy server asks to be left alone. */
  readonly retryAfterMs: number | undefined;
}

/**
 * Sends a request of an exchange, by the connections of the host that it is for. Redirects are not followed.
 * @throws LoginError where there is no response
 */
export type SendExchange = (
  request: ExchangeRequest,
  signal: AbortSignal,
) => Promise<ExchangeResponse>;

/**
 * Sends a request of an exchange whose response is JSON.
 * @returns the JSON of a response with 200 or 201
 * @throws LoginError ExchangeFailed, which shows the server's own code and message where they can't hold a token
 */
export async function exchangeJson(
  send: SendExchange,
  request: ExchangeRequest,
  signal: AbortSignal,
): Promise<unknown> {
  const { status, text, retryAfterMs } = await send(request, signal);
  const { origin, pathname } = request.url;
  const server = `${origin}${pathname}`;
  const body = parseJson(text);
  if (status === 200 || status === 201) {
    if (typeof body === "object" && body !== null) return body;
    const message = `${server} answered ${status} without JSON: it is no token exchange, or its answer is too long`;
    throw new LoginError("ExchangeFailed", message);
  }
  if (status >= 300 && status < 400) {
    const message = `${server} answered ${status}, a redirect, which is not followed: a token is sent to no other place`;
    throw new LoginError("ExchangeFailed", message);
  }
  const isTransient = status === 429 || status >= 500;
  const message = `${server} answered ${status}${reasonIn(body)} to the exchange of the token`;
  throw new LoginError("ExchangeFailed", message, { isTransient, retryAfterMs });
}

const maxReasonLength = 300;
/** Whatever looks like a token, or like a part of one. */
const opaque = /[A-Za-z0-9_+/=-]{40,}/;

/** The code and the message of an error (RFC 6749, section 5.2, and its relatives), as ` (code: message)`. */
function reasonIn(body: unknown): string {
  const nested = property(body, "error");
  const first = property(body, "errors");
  const places = [body, nested, Array.isArray(first) ? first[0] : undefined];
  const names = ["error", "code", "error_description", "message", "error_message"];
  const texts = places
    .flatMap((place) => names.map((name) => property(place, name)))
    .filter((text) => typeof text === "string" && text !== "" && !opaque.test(text))
    .map((text) => show(text).slice(1, -1));
  const reason = [...new Set(texts)].slice(0, 2).join(": ").slice(0, maxReasonLength);
  return reason === "" ? "" : ` (${reason})`;
}
