/** What the headers of requests and of responses have in common. */
import type { IncomingHttpHeaders } from "node:http";
import { isDigest } from "../connector/repository.ts";
import type { ResponseHeaders } from "../upstream/http-client/http-exchange.ts";

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

/**
 * Headers of registries' responses that have one value, in which no comma stands. What adds one without a look, as nginx's
 * `add_header` does, sends it twice, and HTTP clients join the two.
 */
const singleHeaders: readonly string[] = [
  "accept-ranges",
  "content-range",
  "docker-content-digest",
  "docker-distribution-api-version",
  "docker-upload-uuid",
  "oci-chunk-min-length",
  "oci-subject",
  "range",
];

/** {@link pickHeaders} of a response. What came several times with the same value is there once, where it has one value. */
export function pickResponseHeaders(
  headers: ResponseHeaders,
  isPicked: (name: string, value: string | string[]) => boolean,
): HeaderFields {
  const picked = pickHeaders(headers, isPicked);
  for (const name of singleHeaders) {
    const value = picked[name];
    if (typeof value === "string" && value.includes(",")) picked[name] = withoutRepetition(value);
  }
  return picked;
}

/** The digest that a response says its content has; undefined where it says none, or several that differ. */
export function contentDigest({
  "docker-content-digest": value,
}: ResponseHeaders): string | undefined {
  const digest = typeof value === "string" ? withoutRepetition(value) : "";
  return isDigest(digest) ? digest : undefined;
}

/** `a, a` as `a`, and any other text as it is. */
function withoutRepetition(value: string): string {
  const values = new Set(value.split(",").map((one) => one.trim()));
  const [first = value] = values;
  return values.size === 1 ? first : value;
}
