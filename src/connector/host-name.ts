import { isIPv4, isIPv6 } from "node:net";

/** A name that all resolvers read in the same way. */
const name = /^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?$/;
/** Resolvers read `2130706433`, `0x7f.1` and `127.1` as addresses, so a name does not end in a number (WHATWG URL, "ends in a number"). */
const endsInNumber = /(^|\.)(\d+|0x[0-9a-f]*)\.?$/;
const maxNameLength = 254;

/**
 * The canonical spelling of a host in a URL, an authority or a rule: a name without the root's dot, or an IP address
 * without brackets.
 * @param host in lower case; an IPv6 address in brackets
 * @returns undefined for a host that could be read in two ways
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
