import { type LookupAddress, lookup as systemLookup } from "node:dns";
import { isIP, type LookupFunction } from "node:net";
import ipaddr from "ipaddr.js";
import { LRUCache } from "lru-cache";
import { getDomain } from "tldts";
import type { Connector } from "../connector/connector.ts";
import { withoutBrackets } from "../connector/host-name.ts";
import { forbiddenNameRefusal, isPublicName } from "./unresolved-name.ts";
import { createPolicyJudge, spellingsOf, type UpstreamPolicy } from "./upstream-policy.ts";

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
 *
 * In a cluster, the operator's policy comes before all of that (`upstream-policy.ts`).
 */
export interface AddressGuard {
  /**
   * Judges a host for a connection to one of its ports.
   * @returns a lookup for `net.connect` that leaves out the addresses that may not be dialled, whose error is
   *   {@link AddressRefused} where none is left; that error itself for an IP address, which sockets don't look up
   */
  readonly lookupFor: (hostname: string, port: number) => LookupFunction | AddressRefused;
  /**
   * Judges a host that is reached by a company's proxy, which decides which of its addresses is dialled: none of them may
   * be one that is refused. A name that only the proxy may know is judged as a name.
   * @param find finds the addresses
   * @throws AddressRefused, or what `find` throws
   */
  readonly admit: (hostname: string, port: number, find: FindAddresses) => Promise<void>;
  /** Judges the host of a URL that is an IP address. Names are fine here: a lookup judges them. */
  checkHost(url: URL): AddressRefused | undefined;
  /**
   * Whether clients hear no more of a URL's host than that it can't be reached: it was last found at an internal address
   * that the operator has not named, and whoever may create Connectors could scan the cluster's network otherwise.
   */
  isConcealed(url: URL): boolean;
}

/** Finds all addresses of a host as `dns.lookup` does. The options are those that `net.connect` passes on. */
export type ResolveHost = (
  hostname: string,
  options: { readonly all: true },
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

/**
 * Finds the addresses of a host that is to be reached by a company's proxy.
 * @returns undefined where DNS does not know the host here, and the proxy may: it is judged by its name then
 * @throws where its addresses have to be known
 */
export type FindAddresses = (
  hostname: string,
  lookup: ResolveHost,
) => Promise<readonly LookupAddress[] | undefined>;

/** Hosts of one connector of which it is known whether they are at internal addresses. */
const maxConcealed = 50;

/**
 * Makes the guard of a connector, by its address and the hosts that its spec allows.
 * @param lookup finds the addresses of hosts; the system's, where none is given
 * @param policy of a cluster; there is none elsewhere
 */
export function createAddressGuard(
  connector: Connector,
  lookup: ResolveHost = systemLookup,
  policy?: UpstreamPolicy,
): AddressGuard {
  const judge = policy && createPolicyJudge(policy);
  const concealed = new LRUCache<string, boolean>({ max: maxConcealed });
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
  const siblingKinds = async (
    hostname: string,
    find: FindAddresses,
  ): Promise<ReadonlySet<string>> => {
    if (!isSibling(hostname)) return new Set();
    const addresses = (await find(connector.address.hostname, lookup)) ?? [];
    return new Set(addresses.map(({ address }) => addressKind(address)));
  };
  const refusalByKind = (
    hostname: string,
    address: string,
    kinds: ReadonlySet<string> | undefined,
  ): string | undefined =>
    isAllowedKind(addressKind(address), kinds) || judge?.isInNamedNetwork(address)
      ? undefined
      : refusal(hostname, address);
  /** Outside of a cluster, what a gateway may make of an address is not looked at. */
  const isForbidden = (address: string): boolean =>
    (judge === undefined ? [address] : spellingsOf(address)).some((spelling) =>
      forbiddenKinds.has(addressKind(spelling)),
    );
  /** Why an address may not be dialled; undefined where it may. */
  const refusalOf = (
    { hostname, port }: HostAndPort,
    address: string,
    kinds: ReadonlySet<string> | undefined,
  ): string | undefined => {
    const isNamed = judge?.isNamed(hostname, port) === true;
    if (isForbidden(address)) {
      return isNamed && hostname === address ? undefined : forbiddenRefusal(hostname, address);
    }
    if (isNamed) return undefined;
    const closed = judge?.closedBecause(address, port);
    return closed === undefined
      ? refusalByKind(hostname, address, kinds)
      : closedRefusal(hostname, address, closed);
  };
  const isHidden = ({ hostname, port }: HostAndPort, address: string): boolean =>
    judge !== undefined &&
    addressKind(address) !== "unicast" &&
    !judge.isNamed(hostname, port) &&
    !judge.isInNamedNetwork(address);
  /** Why each address may not be dialled; undefined where it may. */
  const judgeAll = async (
    to: HostAndPort,
    addresses: readonly LookupAddress[],
    find: FindAddresses,
  ): Promise<readonly (string | undefined)[]> => {
    const { hostname } = to;
    const kinds = ownHosts.has(hostname) ? undefined : await siblingKinds(hostname, find);
    concealed.set(
      hostname,
      addresses.some(({ address }) => isHidden(to, address)),
    );
    return addresses.map(({ address }) => refusalOf(to, address, kinds));
  };
  const lookupDialable = async (
    to: HostAndPort,
    options: object,
  ): Promise<readonly LookupAddress[]> => {
    const { hostname } = to;
    const addresses = await lookupAll(lookup, hostname, options);
    const refusals = await judgeAll(to, addresses, findHere);
    const dialable = addresses.filter((_, index) => refusals[index] === undefined);
    if (dialable.length === 0) throw new AddressRefused(refusals[0] ?? refusal(hostname, ""));
    return dialable;
  };
  /** Why a host of which only the name is known may not be connected to; undefined where it may. */
  const nameRefusal = ({ hostname, port }: HostAndPort): string | undefined => {
    if (judge?.isNamed(hostname, port)) return undefined;
    const forbidden = forbiddenNameRefusal(hostname);
    if (forbidden !== undefined) return forbidden;
    if (ownHosts.has(hostname) || isSibling(hostname) || isPublicName(hostname)) return undefined;
    return `host ${hostname} is unknown to DNS here, and by its name not one of the public DNS; ${advice}`;
  };
  const admit = async (to: HostAndPort, find: FindAddresses): Promise<void> => {
    const { hostname } = to;
    if (isIP(hostname) !== 0) return; // `lookupFor` has judged it
    const addresses = await find(hostname, lookup);
    if (addresses === undefined) concealed.set(hostname, false);
    const refusals =
      addresses === undefined ? [nameRefusal(to)] : await judgeAll(to, addresses, find);
    const reason = refusals.find((refused) => refused !== undefined);
    if (reason !== undefined) throw new AddressRefused(reason);
  };
  const checkAddress = (to: HostAndPort): AddressRefused | undefined => {
    const { hostname } = to;
    if (isIP(hostname) === 0) return undefined;
    concealed.set(hostname, isHidden(to, hostname));
    const reason = refusalOf(to, hostname, ownHosts.has(hostname) ? undefined : new Set());
    return reason === undefined ? undefined : new AddressRefused(reason);
  };
  return {
    lookupFor: (hostname, port) =>
      checkAddress({ hostname, port }) ??
      ((_hostname, options, callback) => {
        lookupDialable({ hostname, port }, options).then(
          ([first, ...others]) => {
            if (first === undefined) return;
            if (options.all) callback(null, [first, ...others]);
            else callback(null, first.address, first.family);
          },
          (error: NodeJS.ErrnoException) => callback(error, "", 0),
        );
      }),
    admit: (hostname, port, find) => admit({ hostname, port }, find),
    checkHost: (url) =>
      checkAddress({
        hostname: withoutBrackets(url.hostname),
        port: Number(url.port) || (url.protocol === "https:" ? 443 : 80),
      }),
    isConcealed: (url) => concealed.get(withoutBrackets(url.hostname)) === true,
  };
}

const findHere: FindAddresses = (hostname, lookup) => lookupAll(lookup, hostname, {});

/** What a connection leads to. */
interface HostAndPort {
  /** A name, or an IP address without brackets. */
  readonly hostname: string;
  readonly port: number;
}

/** The host is at no address that may be dialled. The message says how to allow it. */
export class AddressRefused extends Error {
  override readonly name = "AddressRefused";
}

/** The domain that somebody registered: `example.co.uk`; undefined for an IP address and a name without dots. */
export const registrableDomain = (hostname: string): string | undefined =>
  getDomain(hostname, { allowPrivateDomains: true }) ?? undefined;

const refusal = (hostname: string, address: string): string =>
  forbiddenKinds.has(addressKind(address))
    ? forbiddenRefusal(hostname, address)
    : `${placeOf(hostname, address)} this registry may not refer to; ${advice}`;

const advice =
  "to allow it, name the host in the connector's spec.params allowedRedirectHosts or allowedRealmHosts";

const forbiddenRefusal = (hostname: string, address: string): string =>
  `${placeOf(hostname, address)} is never connected to`;

const placeOf = (hostname: string, address: string): string =>
  `host ${hostname} is at ${address}, an address (${addressKind(address)}) that`;

/** What a connector's status says where the cluster's policy closes its address. */
const closedRefusal = (hostname: string, address: string, what: string): string =>
  `host ${hostname} is at ${address}, ${what}: no connector leads there, unless the cluster's operator names the host ` +
  "in UPSTREAM_NETWORKS (daemonset/settings.env)";

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

/** Metadata services of Alibaba, Azure, Oracle, Amazon and Google; the others sit on link-local addresses. */
const metadataAddresses: ReadonlySet<string> = new Set([
  "100.100.100.200",
  "168.63.129.16",
  "192.0.0.192",
  "fd00:ec2::23",
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
