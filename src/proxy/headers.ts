import type { IncomingHttpHeaders } from "node:http";

export type Headers = Record<string, string | string[]>;

/** RFC 9110, section 7.6.1, and what older intermediaries use. */
export const hopByHop: readonly string[] = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];
/** Shorter credentials would be found where they are not meant. */
const shortestSecret = 8;

/** Whether a text has the credential of an Authorization header in it, as registries in debug mode echo it. */
export function shows(text: string, authorization: string | undefined): boolean {
  const secret = authorization?.slice(authorization.indexOf(" ") + 1) ?? "";
  return secret.length >= shortestSecret && text.includes(secret);
}

export function pick(
  headers: IncomingHttpHeaders,
  wanted: (name: string, value: string | string[]) => boolean,
): Headers {
  const picked: Headers = {};
  for (const name in headers) {
    const value = headers[name];
    if (value !== undefined && wanted(name, value)) picked[name] = value;
  }
  return picked;
}

const nothing: ReadonlySet<string> = new Set();

/** Headers that `Connection` names go no further than this hop. */
export function connectionTokens(
  connection: string | readonly string[] | undefined,
): ReadonlySet<string> {
  if (connection === undefined || connection === "keep-alive" || connection === "close") {
    return nothing; // those are hop-by-hop by themselves
  }
  const tokens = [connection].flat().join(",").toLowerCase().split(",");
  return new Set(tokens.map((token) => token.trim()));
}
