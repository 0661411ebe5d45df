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

/**
 * What a registry must not hear of a client: its credentials, and what registries build absolute
 * URLs from (docker-registry makes its Location out of X-Forwarded-Proto and Host).
 */
const notForRegistries: ReadonlySet<string> = new Set([
  ...hopByHop,
  "authorization",
  "content-length", // whoever sends the body frames it
  "cookie",
  "expect",
  "forwarded",
  "host",
  "user-agent",
  "via",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-port",
  "x-forwarded-prefix",
  "x-forwarded-proto",
  "x-real-ip",
]);

/** What a client must not hear of a registry: how to log in to it, and what is said to browsers of that host. */
const notForClients: ReadonlySet<string> = new Set([
  ...hopByHop,
  "alt-svc",
  "location", // rewritten
  "link", // rewritten
  "proxy-authentication-info",
  "public-key-pins",
  "set-cookie",
  "strict-transport-security",
  "www-authenticate",
  "x-registry-supports-signatures", // makes containers/image ask /extensions/v2/, which is no part of the API
]);

/** Headers that a storage host gets to hear; it needs no more to serve a blob. */
const forStorage = ["accept", "accept-encoding", "range", "if-range"];

/** Headers of a storage host that describe the blob. Its others are about the storage, or about us. */
const fromStorage: ReadonlySet<string> = new Set([
  "accept-ranges",
  "age",
  "cache-control",
  "content-encoding",
  "content-length",
  "content-range",
  "content-type",
  "date",
  "docker-content-digest",
  "etag",
  "last-modified",
  "retry-after",
]);

/** Headers of a registry's redirect: what it leads to, and how long it holds. The others are about its body, or about us. */
const fromRedirect: ReadonlySet<string> = new Set([
  "age",
  "cache-control",
  "date",
  "docker-content-digest",
  "docker-distribution-api-version",
  "expires",
]);

const product = "oci-connector";

/** The client's headers as a registry gets them; the client's User-Agent stands behind ours. */
export function headersForRegistry(headers: IncomingHttpHeaders): Headers {
  const named = connectionTokens(headers.connection);
  const kept = pick(headers, (name) => !notForRegistries.has(name) && !named.has(name));
  const agent = headers["user-agent"];
  kept["user-agent"] = agent === undefined ? product : `${product} ${agent}`;
  return kept;
}

/**
 * Whether a request has come through this proxy twice: a connector whose address leads back here would go
 * round for ever. Our name in the User-Agent tells, since Via makes some servers leave off compression.
 */
export const goesRound = ({ "user-agent": agent = "" }: IncomingHttpHeaders): boolean =>
  agent.startsWith(`${product} ${product}`);

/** The same for a host that a registry redirects to. */
export function headersForStorage(headers: Headers): Headers {
  return { ...pick(headers, (name) => forStorage.includes(name)), "user-agent": product };
}

/**
 * A registry's headers as the client gets them, but for Location and Link.
 * @param authorization what the registry was sent; a header that shows it is left out
 */
export function headersForClient(
  headers: IncomingHttpHeaders,
  authorization: string | undefined,
): Headers {
  const named = connectionTokens(headers.connection);
  return pick(
    headers,
    (name, value) =>
      !notForClients.has(name) && !named.has(name) && !shows(String(value), authorization),
  );
}

/** Shorter credentials would be found where they are not meant. */
const shortestSecret = 8;

/** Whether a text has the credential of an Authorization header in it, as registries in debug mode echo it. */
export function shows(text: string, authorization: string | undefined): boolean {
  const secret = authorization?.slice(authorization.indexOf(" ") + 1) ?? "";
  return secret.length >= shortestSecret && text.includes(secret);
}

/** The same for a host that a registry redirected to. */
export const storageHeadersForClient = (headers: IncomingHttpHeaders): Headers =>
  pick(headers, (name) => fromStorage.has(name));

/** The same for a redirect that the client follows itself, but for its Location. */
export const redirectHeadersForClient = (headers: IncomingHttpHeaders): Headers =>
  pick(headers, (name) => fromRedirect.has(name));

function pick(
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
