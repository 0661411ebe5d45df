/** What the headers of requests and of responses have in common. */
import type { IncomingHttpHeaders } from "node:http";

/** Headers by their names in lower case. A header that came several times may be a list. */
export type HeaderFields = Record<string, string | string[]>;

/** Headers that are between two hops alone: RFC 9110, section 7.6.1, and what older intermediaries use. */
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

const noTokens: ReadonlySet<string> = new Set();

/**
 * The names in a `Connection` header, in lower case. Headers that it names go no further than this hop.
 * @returns an empty set for `keep-alive` and `close`, which are hop-by-hop by themselves
 */
export function connectionTokens(
  connection: string | readonly string[] | undefined,
): ReadonlySet<string> {
  if (connection === undefined || connection === "keep-alive" || connection === "close") {
    return noTokens;
  }
  const tokens = [connection].flat().join(",").toLowerCase().split(",");
  return new Set(tokens.map((token) => token.trim()));
}

/**
 * Whether a message comes in another transfer coding than `chunked` (RFC 9112, section 7), such as `gzip, chunked`. Node's
 * parser takes the chunks apart, and leaves the rest as it is.
 */
export const hasOtherCoding = ({ headers }: { readonly headers: IncomingHttpHeaders }): boolean => {
  const coding = headers["transfer-encoding"];
  return coding !== undefined && coding.trim().toLowerCase() !== "chunked";
};

/** A copy of those headers that a predicate is true for. */
export function pickHeaders(
  headers: Readonly<Record<string, string | string[] | undefined>>,
  isPicked: (name: string, value: string | string[]) => boolean,
): HeaderFields {
  const picked: HeaderFields = {};
  for (const name in headers) {
    const value = headers[name];
    if (value !== undefined && isPicked(name, value)) picked[name] = value;
  }
  return picked;
}
