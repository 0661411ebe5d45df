import { lookup as systemLookup } from "node:dns";
import { isIP, type LookupFunction } from "node:net";
import ipaddr from "ipaddr.js";
import type { Result } from "../../connector/surroundings.ts";
import type { ListedHost, TunnelRules } from "../../connector/tunnel-rules.ts";
import {
  AddressRefused,
  forbidden,
  kindOf,
  type ResolveHost,
  resolve,
} from "../../upstream/address-guard.ts";

export interface TunnelPolicyOptions {
  readonly rules: TunnelRules;
  /** Addresses of this node and of the API server, as they are now. */
  readonly ownAddresses: () => readonly string[];
  /** The system's, where none is given. */
  readonly lookup?: ResolveHost;
}

export interface TunnelPolicy {
  /**
   * May somebody be connected to that host? Where its name alone does not forbid it, the answer is a lookup for
   * `net.connect` that finds just the addresses that may be dialled, so that what was judged is what is dialled.
   * It fails with AddressRefused.
   */
  lookupFor(hostname: string, port: number): Result<LookupFunction>;
}

/** What is known of a host before it is looked up. */
interface Standing {
  readonly hostname: string;
  readonly isListed: boolean;
  readonly isPublicAllowed: boolean;
}

export function createTunnelPolicy({
  rules,
  ownAddresses,
  lookup = systemLookup,
}: TunnelPolicyOptions): TunnelPolicy {
  const networks = rules.networks.map(ipaddr.parseCIDR);
  const neverNetworks = rules.neverNetworks.map(ipaddr.parseCIDR);

  /** Why an address may not be dialled; undefined where it may. */
  const objection = (
    address: string,
    standing: Standing,
    own: ReadonlySet<string>,
  ): string | undefined => {
    const kind = kindOf(address);
    const isForbidden = forbidden.has(kind);
    if (standing.isListed && (standing.hostname === address || !isForbidden)) return undefined;
    if (isForbidden) return `an address (${kind}) that is never connected to`;
    const canonical = canonicalOf(address);
    return (
      closed(canonical, own) ?? (isIn(canonical, networks) ? undefined : unopened(kind, standing))
    );
  };
  const closed = (canonical: string, own: ReadonlySet<string>): string | undefined => {
    if (isIn(canonical, neverNetworks)) return "in a network that is closed";
    return own.has(canonical)
      ? "an address of this machine, or of the cluster's API server"
      : undefined;
  };
  /** Looked up once for all addresses of a host: the machine is asked for its interfaces each time. */
  const ownNow = (): ReadonlySet<string> => new Set(ownAddresses().map(canonicalOf));
  const unopened = (kind: string, { isPublicAllowed }: Standing): string | undefined => {
    if (kind !== "unicast") return `an internal address (${kind})`;
    return isPublicAllowed ? undefined : "not among the hosts that are allowed";
  };

  const allowed = async (standing: Standing, options: object) => {
    const addresses = await resolve(lookup, standing.hostname, options);
    const own = ownNow();
    const fit = addresses.filter(({ address }) => objection(address, standing, own) === undefined);
    const [first] = addresses;
    if (fit.length > 0 || first === undefined) return fit;
    throw new AddressRefused(
      refusal(standing.hostname, first.address, objection(first.address, standing, own) ?? ""),
    );
  };

  return {
    lookupFor(hostname, port) {
      const isAt = (listed: ListedHost): boolean => (listed.port ?? port) === port;
      const isListed = rules.hosts.some((listed) => listed.host === hostname && isAt(listed));
      const isBelow = rules.domains.some(
        (listed) => hostname.endsWith(`.${listed.host}`) && isAt(listed),
      );
      const standing = { hostname, isListed, isPublicAllowed: rules.any || isBelow };
      if (!isListed && !standing.isPublicAllowed && networks.length === 0) {
        return { ok: false, reason: `${hostname}:${port} is not among the hosts that are allowed` };
      }
      const why = isIP(hostname) === 0 ? undefined : objection(hostname, standing, ownNow());
      if (why !== undefined) return { ok: false, reason: refusal(hostname, hostname, why) };
      return { ok: true, value: lookupWith((options) => allowed(standing, options)) };
    },
  };
}

const refusal = (hostname: string, address: string, why: string): string =>
  hostname === address ? `${hostname} is ${why}` : `${hostname} is at ${address}, ${why}`;

const lookupWith =
  (
    find: (
      options: object,
    ) => Promise<readonly { readonly address: string; readonly family: number }[]>,
  ): LookupFunction =>
  (hostname, options, callback) => {
    find(options).then(
      ([first, ...others]) => {
        if (first === undefined) callback(notFound(hostname), "", 0);
        else if (options.all) callback(null, [first, ...others]);
        else callback(null, first.address, first.family);
      },
      (error: NodeJS.ErrnoException) => callback(error, "", 0),
    );
  };

const notFound = (hostname: string): NodeJS.ErrnoException =>
  Object.assign(new Error(`${hostname} has no address`), { code: "ENOTFOUND" });

/** One spelling of an address, seen through IPv4-mapped (RFC 4291) and NAT64 (RFC 6052) forms. */
function canonicalOf(text: string): string {
  if (!ipaddr.isValid(text)) return text;
  const address = ipaddr.process(text);
  if (address.range() !== "rfc6052") return address.toString();
  return address.toByteArray().slice(-4).join(".");
}

function isIn(
  canonical: string,
  networks: readonly [ipaddr.IPv4 | ipaddr.IPv6, number][],
): boolean {
  if (!ipaddr.isValid(canonical)) return false;
  const address = ipaddr.parse(canonical);
  return networks.some(
    ([network, bits]) => network.kind() === address.kind() && address.match(network, bits),
  );
}
