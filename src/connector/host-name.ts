import { isIPv4, isIPv6 } from "node:net";

/** What a name can be made of; others would be read by one resolver and not by the next. */
const name = /^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?$/;
/** Resolvers read `2130706433`, `0x7f.1` and `127.1` as addresses: a name ends in none of these (WHATWG URL, "ends in a number"). */
const endsInNumber = /(^|\.)(\d+|0x[0-9a-f]*)\.?$/;
const maxNameLength = 254;

/**
 * The one spelling of a host that stands in a URL, an authority or a rule: a name without the root's dot, an IP address
 * without brackets; undefined for anything that could be read in two ways.
 * @param host in lower case
 */
export function hostnameIn(host: string): string | undefined {
  if (isIPv4(host)) return host;
  if (host.startsWith("[")) {
    const address = host.slice(1, -1);
    if (!/^[0-9a-f:.]+$/.test(address) || !isIPv6(address)) return undefined;
    return URL.parse(`http://${host}`)?.hostname.slice(1, -1); // one spelling of many
  }
  if (host.length > maxNameLength || !name.test(host) || endsInNumber.test(host)) return undefined;
  return host.replace(/\.$/, ""); // the root of DNS, which is implied
}

/** A host as sockets and certificates take it: an IPv6 address without the brackets that it has in a URL. */
export const withoutBrackets = (host: string): string => host.replace(/^\[|\]$/g, "");

/** A host as a URL or an authority takes it (RFC 3986, section 3.2.2): an IPv6 address gets brackets. */
export const withBrackets = (host: string): string => (isIPv6(host) ? `[${host}]` : host);
