import { type LookupAddress, lookup as systemLookup } from "node:dns";
import { isIP, type LookupFunction } from "node:net";
import ipaddr from "ipaddr.js";
import { getDomain } from "tldts";
import type { Connector } from "../connector/connector.ts";
import type { Result } from "../connector/platform.ts";

/**
 * Decides which addresses may be dialled on behalf of a connector. A registry decides where its redirects and
 * its token realm point, so without this it could make the proxy fetch from the node, the cluster or
 * a cloud's metadata service. A name is judged by the addresses that it resolves to, and just those are dialled.
 *
 * - The connector's own hosts, and those that its `spec.params` allow: everywhere but link-local,
 *   metadata and unspecified addresses.
 * - Hosts of the registry's own domain: public addresses, and the kinds of address that the
 *   registry's own host has, so that a registry inside may send to its neighbours inside.
 * - All others: public addresses.
 */
export interface AddressGuard {
  /** Resolves a name for `net.connect`, and leaves out the addresses that may not be dialled. Where none is left, its error is {@link AddressRefused}. */
  readonly lookup: LookupFunction;
  /**
   * Judges a host that is an IP address, which sockets don't look up. Names are fine here: `lookup` judges them.
   * @param hostname an IPv6 address without brackets
   */
  checkHost(hostname: string): Result<void>;
}

/** Finds all addresses of a host as `dns.lookup` does. The options are those that `net.connect` passes on. */
export type ResolveHost = (
  hostname: string,
  options: { readonly all: true },
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

/**
 * Makes the guard of a connector, by its address and the hosts that its spec allows.
 * @param lookup finds the addresses of hosts; the system's, where none is given
 */
export function createAddressGuard(
  connector: Connector,
  lookup: ResolveHost = systemLookup,
): AddressGuard {
  const ownHosts = new Set([
    connector.address.hostname,
    ...connector.addressExtensions.map(({ hostname }) => hostname),
    ...connector.allowedRealmHosts,
    ...connector.allowedRedirectHosts,
  ]);
  const domain = registrableDomain(connector.address.hostname);
  const isSibling = (hostname: string): boolean =>
    domain !== undefined && registrableDomain(hostname) === domain;

  /** The kinds of address that a host of the registry's own domain may have, beside public ones. */
  const siblingKinds = async (hostname: string): Promise<ReadonlySet<string>> => {
    if (!isSibling(hostname)) return new Set();
    const addresses = await lookupAll(lookup, connector.address.hostname, {});
    return new Set(addresses.map(({ address }) => addressKind(address)));
  };
  const lookupDialable = async (
    hostname: string,
    options: object,
  ): Promise<readonly LookupAddress[]> => {
    const addresses = await lookupAll(lookup, hostname, options);
    const kinds = ownHosts.has(hostname) ? undefined : await siblingKinds(hostname);
    const dialable = addresses.filter(({ address }) => isAllowedKind(addressKind(address), kinds));
    if (dialable.length === 0) {
      throw new AddressRefused(refusal(hostname, addresses[0]?.address ?? ""));
    }
    return dialable;
  };
  return {
    lookup(hostname, options, callback) {
      lookupDialable(hostname, options).then(
        ([first, ...others]) => {
          if (first === undefined) return;
          if (options.all) callback(null, [first, ...others]);
          else callback(null, first.address, first.family);
        },
        (error: NodeJS.ErrnoException) => callback(error, "", 0),
      );
    },
    checkHost(hostname) {
      if (isIP(hostname) === 0) return { ok: true, value: undefined };
      const kinds = ownHosts.has(hostname) ? undefined : new Set<string>();
      return isAllowedKind(addressKind(hostname), kinds)
        ? { ok: true, value: undefined }
        : { ok: false, reason: refusal(hostname, hostname) };
    },
  };
}

/** The host is at no address that may be dialled. The message says how to allow it. */
export class AddressRefused extends Error {
  override readonly name = "AddressRefused";
}

/** The domain that somebody registered: `example.co.uk`; undefined for an IP address and a name without dots. */
export const registrableDomain = (hostname: string): string | undefined =>
  getDomain(hostname, { allowPrivateDomains: true }) ?? undefined;

function refusal(hostname: string, address: string): string {
  const kind = addressKind(address);
  const what = `host ${hostname} is at ${address}, an address (${kind}) that`;
  return forbiddenKinds.has(kind)
    ? `${what} is never connected to`
    : `${what} this registry may not refer to; to allow it, name the host in the connector's ` +
        "spec.params allowedRedirectHosts or allowedRealmHosts";
}

/** @param kinds are allowed beside public addresses; undefined where all kinds are, but for the forbidden ones */
const isAllowedKind = (kind: string, kinds: ReadonlySet<string> | undefined): boolean =>
  !forbiddenKinds.has(kind) && (kind === "unicast" || kinds === undefined || kinds.has(kind));

/** Kinds of address that are never dialled. */
export const forbiddenKinds: ReadonlySet<string> = new Set([
  "linkLocal",
  "metadata",
  "unspecified",
  "broadcast",
  "multicast",
  "invalid",
]);

/** Metadata services of Alibaba, Azure, Amazon and Google; the others sit on link-local addresses. */
const metadataAddresses: ReadonlySet<string> = new Set([
  "100.100.100.200",
  "168.63.129.16",
  "fd00:ec2::254",
  "fd20:ce::254",
]);

/**
 * The kind of an IP address, by the names of ipaddr.js and `metadata`: `unicast` is a public one. IPv4-mapped (RFC 4291)
 * and NAT64 (RFC 6052) addresses have the kind of the IPv4 address in them. What is no address is `invalid`.
 */
export function addressKind(text: string): string {
  if (!ipaddr.isValid(text)) return "invalid";
  const address = ipaddr.process(text);
  if (metadataAddresses.has(address.toString())) return "metadata";
  const range = address.range();
  const bytes = address.toByteArray();
  if (range === "rfc6052") return addressKind(bytes.slice(-4).join("."));
  // IANA gives out 2000::/3 alone; `::127.0.0.1` (RFC 4291, 2.5.5.1) and the like lie elsewhere.
  const isGlobal = bytes.length === 4 || ((bytes[0] ?? 0) & 0xe0) === 0x20;
  return range === "unicast" && !isGlobal ? "reserved" : range;
}

/**
 * Resolves a host to all of its addresses. An IP address is its own.
 * @throws the error of `lookup`
 */
export function lookupAll(
  lookup: ResolveHost,
  hostname: string,
  options: object,
): Promise<LookupAddress[]> {
  if (isIP(hostname)) return Promise.resolve([{ address: hostname, family: isIP(hostname) }]);
  return new Promise((settle, reject) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) =>
      error ? reject(error) : settle(addresses),
    );
  });
}
