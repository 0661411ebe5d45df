import type { IncomingMessage } from "node:http";
import { isIPv6 } from "node:net";

import { connectionTokens, hasOtherCoding } from "../headers.ts";
import { RegistryError } from "../registry-error.ts";

/**
 * Headers that say who sends the request, to whom, and where its body ends, in lower case. A request that has one of
 * them twice, or names it in `Connection`, can be read in two ways. Node's parser checks the values of the lengths.
 */
const singletonHeaders: ReadonlySet<string> = new Set([
  "authorization",
  "content-length",
  "content-range",
  "host",
  "proxy-authorization",
  "transfer-encoding",
]);

/**
 * Refuses a request whose head a registry may read in another way than this proxy does (RFC 9112, section 11.2).
 * @throws RegistryError 400; 501 for a transfer coding other than chunked
 */
export function checkHead(request: IncomingMessage): void {
  const { rawHeaders, headers } = request;
  let seen = ",";
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]?.toLowerCase() ?? "";
    if (!singletonHeaders.has(name)) continue;
    if (seen.includes(`,${name},`)) throw ambiguous(`the header ${name} appears twice`);
    seen += `${name},`;
  }
  for (const name of connectionTokens(headers.connection)) {
    if (singletonHeaders.has(name)) throw ambiguous(`Connection names the header ${name}`);
  }
  checkHost(headers.host ?? "");
  // RFC 9110, section 6.5.1: fields behind a body must not say what it is, or who sends it. No registry reads any.
  if (headers.trailer !== undefined) throw ambiguous("trailers are announced");
  if (hasOtherCoding(request)) throw unknownCoding();
}

/** @throws RegistryError 400 where the Host header is none by its grammar */
function checkHost(host: string): void {
  if (isHostValue(host)) return;
  throw new RegistryError(400, "UNSUPPORTED", "the header host is not a host", {
    detail: "send a name or an address, and a port at most: registry.example.com:5000, [::1]:5000",
  });
}

/** A name or an IPv4 address (RFC 3986, section 3.2.2, `reg-name`), which may be empty; and digits behind a colon. */
const namedHost = /^(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*(?::\d*)?$/;
/** An address in brackets (RFC 3986, section 3.2.2, `IP-literal`), and digits behind a colon. */
const bracketedHost = /^\[([^[\]%]+)\](?::\d*)?$/;
/** An address of a version that there is not yet. */
const futureAddress = /^v[0-9a-f]+\.[a-z0-9._~!$&'()*+,;=:-]+$/i;

/** Whether a text is a value of the Host header (RFC 9112, section 3.2; RFC 9110, section 7.2). An empty one is. */
function isHostValue(text: string): boolean {
  const [, address] = bracketedHost.exec(text) ?? [];
  if (address === undefined) return namedHost.test(text);
  return isIPv6(address) || futureAddress.test(address);
}
/** RFC 9112, section 6.1. Nobody sends one; the bytes would go on as if they were plain. */
const unknownCoding = (): RegistryError =>
  new RegistryError(501, "UNSUPPORTED", "the only supported transfer coding is chunked", {
    detail: "compress with Content-Encoding, or not at all",
  });

const ambiguous = (what: string): RegistryError =>
  new RegistryError(400, "UNSUPPORTED", `this request can be read in two ways: ${what}`, {
    detail: "send each header once, name none of them in Connection, and send no trailers",
  });

/** What a client logs in with. */
export interface ClientLogin {
  /** Empty behind `Bearer`. */
  readonly user: string;
  readonly token: string;
}

/**
 * Reads an Authorization header: the token stands behind `Bearer`, or is the password of any user behind `Basic`.
 * @returns undefined where there is no token, or where the header is malformed
 * @example clientLogin("Bearer abc") // { user: "", token: "abc" }
 */
export function clientLogin(authorization: string | undefined): ClientLogin | undefined {
  const match = /^(basic|bearer) +([A-Za-z0-9._~+/-]+=*) *$/i.exec(authorization ?? "");
  if (match === null) return undefined;
  const [, scheme = "", value = ""] = match;
  if (scheme.toLowerCase() === "bearer") return { user: "", token: value };
  const pair = Buffer.from(value, "base64").toString("utf8");
  const colon = pair.indexOf(":"); // RFC 7617, section 2: the first colon ends the user
  const token = colon < 0 ? "" : pair.slice(colon + 1);
  return token === "" ? undefined : { user: pair.slice(0, colon), token };
}

/**
 * The one `WWW-Authenticate` challenge of the proxy (RFC 9110, section 11.6.1). It is Basic, since every client knows
 * that and needs no token server for it.
 */
export const basicChallenge = 'Basic realm="connectors-proxy"';
