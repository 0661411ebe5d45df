import { type LookupAddress, lookup as systemLookup } from "node:dns";
import { isIP, type LookupFunction } from "node:net";
import ipaddr from "ipaddr.js";
import { getDomain } from "tldts";
import type { Connector } from "../connector/connector.ts";
import type { Result } from "../connector/surroundings.ts";

/**
 * Which addresses may be dialled on behalf of a connector. A registry decides where its redirects and
 * its token realm point, so without this it could make the proxy fetch from the node, the cluster or
 * a cloud's metadata service. Names are judged by what they resolve to, and just that is dialled.
 *
 * - The connector's own hosts, and those that its `spec.params` allow: everywhere but link-local,
 *   metadata and unspecified addresses.
 * - Hosts of the registry's own domain: public addresses, and the kinds of address that the
 *   registry's own host has, so that a registry inside may send to its neighbours inside.
 * - All others: public addresses.
 */
export interface AddressGuard {
  /** For `net.connect`: resolves, and leaves out what may not be dialled. */
  readonly lookup: LookupFunction;
  /** A host that is an IP address is not looked up, so it is judged here. */
  checkHost(hostname: string): Result<void>;
}

/** All addresses of a host, as `dns.lookup` finds them; `options` are those of `net.connect`. */
export type ResolveHost = (
  hostname: string,
  options: { readonly all: true },
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

export function createAddressGuard(
  connector: Connector,
  lookup: ResolveHost = systemLookup,
): AddressGuard {
  const own = new Set([
    connector.address.hostname,
    ...connector.addressExtensions.map(({ hostname }) => hostname),
    ...connector.allowedRealmHosts,
    ...connector.allowedRedirectHosts,
  ]);
  const domain = registrableDomain(connector.address.hostname);
  const isSibling = (hostname: string): boolean =>
    domain !== undefined && registrableDomain(hostname) === domain;

  const ownKinds = async (hostname: string): Promise<ReadonlySet<string>> => {
    if (!isSibling(hostname)) return new Set();
    const addresses = await resolveHost(lookup, connector.address.hostname, {});
    return new Set(addresses.map(({ address }) => addressKind(address)));
  };
  const allowed = async (hostname: string, options: object): Promise<readonly LookupAddress[]> => {
    const addresses = await resolveHost(lookup, hostname, options);
    const kinds = own.has(hostname) ? undefined : await ownKinds(hostname);
    const fit = addresses.filter(({ address }) => mayDial(addressKind(address), kinds));
    if (fit.length === 0) throw new AddressRefused(refusal(hostname, addresses[0]?.address ?? ""));
    return fit;
  };
  return {
    lookup(hostname, options, callback) {
      allowed(hostname, options).then(
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
      const kinds = own.has(hostname) ? undefined : new Set<string>();
      return mayDial(addressKind(hostname), kinds)
        ? { ok: true, value: undefined }
        : { ok: false, reason: refusal(hostname, hostname) };
    },
  };
}

/** A host that resolves to what may not be dialled. Its message says how to allow it. */
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

/** @param kinds what is allowed beside public addresses; undefined where all but the forbidden is */
const mayDial = (kind: string, kinds: ReadonlySet<string> | undefined): boolean =>
  !forbiddenKinds.has(kind) && (kind === "unicast" || kinds === undefined || kinds.has(kind));

/** Kinds of address that nobody is ever sent to. */
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

/** What an address is for, seen through IPv4-mapped (RFC 4291) and NAT64 (RFC 6052) forms; `unicast` is a public one. */
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

/** All addresses of a host; an IP address is its own. */
export function resolveHost(
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
