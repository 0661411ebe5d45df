import { lookup as systemLookup } from "node:dns";
import { isIP, type LookupFunction } from "node:net";
import ipaddr from "ipaddr.js";
import type { Result } from "../../connector/platform.ts";
import type { ListedHost, TunnelRules } from "../../connector/tunnel-rules.ts";
import {
  AddressRefused,
  addressKind,
  type FindAddresses,
  forbiddenKinds,
  lookupAll,
  type ResolveHost,
} from "../../upstream/address-guard.ts";
import { forbiddenNameRefusal, isPublicName } from "../../upstream/unresolved-name.ts";
import { canonicalAddress, isIn } from "../../upstream/upstream-policy.ts";

/** What a policy is made of. */
export interface TunnelPolicyOptions {
  /** The operator's setting. */
  readonly rules: TunnelRules;
  /** The current addresses of this node and of the API server. */
  readonly ownAddresses: () => readonly string[];
  /** Resolves host names; the system's resolver by default. */
  readonly lookup?: ResolveHost;
}

/** Says where clients may go, by tunnels and by requests that are passed on. */
export interface TunnelPolicy {
  /**
   * Checks a host.
   * @param hostname a name in lower case, or an IP address without brackets
   * @returns a refusal where the name or address alone is not allowed; otherwise a lookup for `net.connect` that finds just
   *   the addresses that may be dialled, so that what was checked is what is dialled. It fails with AddressRefused where
   *   there is none.
   */
  lookupFor(hostname: string, port: number): Result<LookupFunction>;
  /**
   * Checks a host that `lookupFor` has not refused, and that is reached by a company's proxy: that one decides which of its
   * addresses is dialled, so none may be one that is not allowed. A name that only the proxy may know is judged as a name.
   * @param find finds the addresses
   * @throws AddressRefused, or what `find` throws
   */
  admit(hostname: string, port: number, find: FindAddresses): Promise<void>;
}

/** What the rules say of a host name, before its addresses are known. */
interface HostRules {
  readonly hostname: string;
  /** Whether the host itself is on the list, so that internal addresses of it are allowed, too. */
  readonly isListed: boolean;
  /** Whether public addresses of it are allowed. */
  readonly isPublicAllowed: boolean;
}

/** Creates the policy of a setting. */
export function createTunnelPolicy({
  rules,
  ownAddresses,
  lookup = systemLookup,
}: TunnelPolicyOptions): TunnelPolicy {
  const networks = rules.networks.map(ipaddr.parseCIDR);
  const neverNetworks = rules.neverNetworks.map(ipaddr.parseCIDR);

  /** Why an address may not be dialled, as the end of a sentence; undefined where it may. */
  const denialOf = (
    address: string,
    host: HostRules,
    own: ReadonlySet<string>,
  ): string | undefined => {
    const kind = addressKind(address);
    const isForbidden = forbiddenKinds.has(kind);
    if (host.isListed && (host.hostname === address || !isForbidden)) return undefined;
    if (isForbidden) return `an address (${kind}) that is never connected to`;
    const canonical = canonicalAddress(address);
    return (
      closedBy(canonical, own) ?? (isIn(canonical, networks) ? undefined : unopenedBy(kind, host))
    );
  };
  const closedBy = (canonical: string, own: ReadonlySet<string>): string | undefined => {
    if (isIn(canonical, neverNetworks)) return "in a network that is closed";
    return own.has(canonical)
      ? "an address of this machine, or of the cluster's API server"
      : undefined;
  };
  /** Called once for all addresses of a host, since it asks the machine for its interfaces each time. */
  const currentOwnAddresses = (): ReadonlySet<string> =>
    new Set(ownAddresses().map(canonicalAddress));
  const unopenedBy = (kind: string, { isPublicAllowed }: HostRules): string | undefined => {
    if (kind !== "unicast") return `an internal address (${kind})`;
    return isPublicAllowed ? undefined : "not among the hosts that are allowed";
  };

  const allowedAddresses = async (host: HostRules, options: object) => {
    const addresses = await lookupAll(lookup, host.hostname, options);
    const own = currentOwnAddresses();
    const allowed = addresses.filter(({ address }) => denialOf(address, host, own) === undefined);
    const [first] = addresses;
    if (allowed.length > 0 || first === undefined) return allowed;
    throw new AddressRefused(
      refusal(host.hostname, first.address, denialOf(first.address, host, own) ?? ""),
    );
  };

  const rulesOf = (hostname: string, port: number): HostRules => {
    const isAt = (listed: ListedHost): boolean => (listed.port ?? port) === port;
    const isListed = rules.hosts.some((listed) => listed.host === hostname && isAt(listed));
    const isBelow = rules.domains.some(
      (listed) => hostname.endsWith(`.${listed.host}`) && isAt(listed),
    );
    return { hostname, isListed, isPublicAllowed: rules.any || isBelow };
  };

  return {
    lookupFor(hostname, port) {
      const host = rulesOf(hostname, port);
      if (!host.isListed && !host.isPublicAllowed && networks.length === 0) {
        return { ok: false, reason: `${hostname}:${port} is not among the hosts that are allowed` };
      }
      const denial =
        isIP(hostname) === 0 ? undefined : denialOf(hostname, host, currentOwnAddresses());
      if (denial !== undefined) {
        return { ok: false, reason: refusal(hostname, hostname, denial) };
      }
      return { ok: true, value: lookupWith((options) => allowedAddresses(host, options)) };
    },
    async admit(hostname, port, find) {
      if (isIP(hostname) !== 0) return; // `lookupFor` has judged it
      const host = rulesOf(hostname, port);
      const addresses = await find(hostname, lookup);
      const own = currentOwnAddresses();
      for (const { address } of addresses ?? []) {
        const denial = denialOf(address, host, own);
        if (denial !== undefined) throw new AddressRefused(refusal(hostname, address, denial));
      }
      const reason = addresses === undefined ? nameDenial(host) : undefined;
      if (reason !== undefined) throw new AddressRefused(reason);
    },
  };
}

/** Why a host of which only the name is known is not allowed; undefined where it is. */
function nameDenial({ hostname, isListed, isPublicAllowed }: HostRules): string | undefined {
  if (isListed) return undefined;
  const forbidden = forbiddenNameRefusal(hostname);
  if (forbidden !== undefined) return forbidden;
  return isPublicAllowed && isPublicName(hostname)
    ? undefined
    : `${hostname} is unknown to DNS here, and by its name not among the hosts that are allowed`;
}

const refusal = (hostname: string, address: string, denial: string): string =>
  hostname === address ? `${hostname} is ${denial}` : `${hostname} is at ${address}, ${denial}`;

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
