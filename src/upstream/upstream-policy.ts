import ipaddr from "ipaddr.js";
import type { TunnelRules } from "../connector/tunnel-rules.ts";

/** Which addresses connectors lead to in a cluster, whatever their documents say. */
export interface UpstreamPolicy {
  /** The operator's lists. A host that is named is open; a network that is named may be referred to by registries. */
  readonly rules: Pick<TunnelRules, "hosts" | "networks" | "neverNetworks">;
  /** What is near now; it is asked for each connection. */
  readonly nearAddresses: () => NearAddresses;
}

/** The addresses of what runs a proxy or a controller. */
export interface NearAddresses {
  /** The Pod's own, and {@link loopbackNetworks}: whatever listens there is this product. Networks are in CIDR notation. */
  readonly pod: readonly string[];
  /** The node's, on which the kubelet listens. */
  readonly node: readonly string[];
  /** The API server's. Without ports all of them are meant. */
  readonly apiServer: readonly ApiServerAddress[];
}

/** An address of the API server. */
export interface ApiServerAddress {
  readonly address: string;
  readonly ports: readonly number[];
}

/** The ports of the kubelet: its API, its health, and the read-only one that old clusters have. */
const kubeletPorts: ReadonlySet<number> = new Set([10_250, 10_248, 10_255]);
/** The ports of this product: proxy, health and metrics of its roles. */
const productPorts: ReadonlySet<number> = new Set([8080, 8443, 9808, 9809, 9810]);
/** Lead to the Pod itself (RFC 1122, section 3.2.1.3; RFC 4291, section 2.5.3). */
export const loopbackNetworks: readonly string[] = ["127.0.0.0/8", "::1/128"];

/** Judges addresses by a policy. */
export interface PolicyJudge {
  /** Whether the operator has named a host and port. */
  isNamed(hostname: string, port: number): boolean;
  /** Whether the operator has named a network with this address, and closed none. */
  isInNamedNetwork(address: string): boolean;
  /**
   * Why no connector leads to an address and port, unless the operator has named the host.
   * @returns what the address is, as in "is at 127.0.0.1, <an address of this Pod>"; undefined where it is open
   */
  closedBecause(address: string, port: number): string | undefined;
}

/** Creates the judge of a policy. */
export function createPolicyJudge({ rules, nearAddresses }: UpstreamPolicy): PolicyJudge {
  const networks = rules.networks.map(ipaddr.parseCIDR);
  const neverNetworks = rules.neverNetworks.map(ipaddr.parseCIDR);

  const closedSpelling = (address: string, port: number): string | undefined =>
    nearBecause(address, port, nearAddresses()) ??
    (isIn(address, neverNetworks) ? "in a network that the operator has closed" : undefined);
  return {
    isNamed: (hostname, port) =>
      rules.hosts.some(({ host, port: only }) => host === hostname && (only ?? port) === port),
    isInNamedNetwork: (address) =>
      spellingsOf(address).some((spelling) => isIn(spelling, networks)) &&
      !spellingsOf(address).some((spelling) => isIn(spelling, neverNetworks)),
    closedBecause(address, port) {
      for (const spelling of spellingsOf(address)) {
        const reason = closedSpelling(spelling, port);
        if (reason !== undefined) return reason;
      }
      return undefined;
    },
  };
}

/** What is near at an address and port and is no registry's; undefined where nothing is known to be. */
function nearBecause(address: string, port: number, near: NearAddresses): string | undefined {
  const isNode = isAmong(address, near.node);
  if (!isNode && isAmong(address, near.pod)) return "an address of this Pod";
  const servers = near.apiServer.filter((server) => isAmong(address, [server.address]));
  if (servers.some(({ ports }) => ports.length === 0 || ports.includes(port))) {
    return "the cluster's API server";
  }
  if (kubeletPorts.has(port) && (isNode || servers.length > 0 || isInternal(address))) {
    return `an address of the cluster, with a port of the kubelet (${port})`;
  }
  return isNode && productPorts.has(port)
    ? `an address of this node, with a port of this product (${port})`
    : undefined;
}

const isAmong = (address: string, list: readonly string[]): boolean =>
  list.some((other) =>
    other.includes("/")
      ? isIn(address, [ipaddr.parseCIDR(other)])
      : canonicalAddress(other) === address,
  );

const isInternal = (address: string): boolean =>
  !ipaddr.isValid(address) || ipaddr.parse(address).range() !== "unicast";

/** The one spelling of an address: that of the IPv4 address for its IPv4-mapped (RFC 4291) and NAT64 (RFC 6052) forms. */
export function canonicalAddress(text: string): string {
  if (!ipaddr.isValid(text)) return text;
  const address = ipaddr.process(text);
  if (address.range() !== "rfc6052") return address.toString();
  return address.toByteArray().slice(-4).join(".");
}

/** An address, and the IPv4 address in it that a gateway may take it to: IPv4-translated (RFC 6145), 6to4 (RFC 3056), IPv4-compatible. */
export function spellingsOf(text: string): readonly string[] {
  const canonical = canonicalAddress(text);
  if (!ipaddr.isValid(canonical)) return [canonical];
  const address = ipaddr.parse(canonical);
  const bytes = address.toByteArray();
  if (bytes.length === 4) return [canonical];
  if (address.range() === "6to4") return [canonical, bytes.slice(2, 6).join(".")];
  const isCompatible = bytes.slice(0, 12).every((byte) => byte === 0) && canonical !== "::1";
  if (address.range() === "rfc6145" || isCompatible) {
    return [canonical, bytes.slice(-4).join(".")];
  }
  return [canonical];
}

/** Whether an address, in its canonical spelling, is in one of these networks. */
export function isIn(
  canonical: string,
  networks: readonly [ipaddr.IPv4 | ipaddr.IPv6, number][],
): boolean {
  if (!ipaddr.isValid(canonical)) return false;
  const address = ipaddr.parse(canonical);
  return networks.some(
    ([network, bits]) => network.kind() === address.kind() && address.match(network, bits),
  );
}
