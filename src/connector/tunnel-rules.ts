import { isIP } from "node:net";
import ipaddr from "ipaddr.js";
import { hostnameIn } from "./host-name.ts";
import { type Checked, show } from "./problem.ts";
import { readEntries } from "./setting-list.ts";

/** The hosts that clients may reach through the forward proxy, beside their connectors. */
export interface TunnelRules {
  /** Whether every host is allowed at a public address. */
  readonly any: boolean;
  /** Hosts that are allowed at public and private addresses, but never at special ones (link-local, metadata and the like). */
  readonly hosts: readonly ListedHost[];
  /** Domains whose subdomains are allowed at public addresses: `example.com` for `*.example.com`. */
  readonly domains: readonly ListedHost[];
  /** Networks in which every host is allowed: `10.1.0.0/16`. */
  readonly networks: readonly string[];
  /** Networks in which no host is allowed unless it is listed itself. */
  readonly neverNetworks: readonly string[];
}

/** A host or domain of a rule. */
export interface ListedHost {
  /** In lower case. An IP address has no brackets. */
  readonly host: string;
  /** The one port that is allowed, or undefined for every port. */
  readonly port: number | undefined;
}

const wanted =
  '"tunnel" for every public host, "refuse" for none, or hosts with commas: ' +
  "github.com:443, *.example.com, 10.1.0.0/16, and !10.96.0.0/12 for a network that is closed";

/**
 * Parses `tunnel`, `refuse`, or a list of allowed hosts. A list with `tunnel` in it adds to the public hosts. Without it,
 * only the listed hosts are allowed.
 * @param path of the setting, for problems
 */
export function parseTunnelRules(text: string, path: string): Checked<TunnelRules> {
  const entries = text.split(",").map((entry) => entry.trim().toLowerCase());
  const { values, problems } = readEntries(entries, readEntry, { path, wanted });
  const isRefused = entries.includes("refuse");
  if (isRefused && entries.length > 1) {
    problems.push({
      path,
      found: show(text),
      wanted: '"refuse" alone, since a list refuses every host that it does not allow',
    });
  }
  if (problems.length > 0) return { ok: false, problems };
  const all = <Kind extends TunnelEntry["kind"]>(
    kind: Kind,
  ): readonly Extract<TunnelEntry, { kind: Kind }>[] =>
    values.filter((entry): entry is Extract<TunnelEntry, { kind: Kind }> => entry.kind === kind);
  const value = {
    any: entries.includes("tunnel"),
    hosts: all("host").map(({ listed }) => listed),
    domains: all("domain").map(({ listed }) => listed),
    networks: all("network").map(({ network }) => network),
    neverNetworks: all("never").map(({ network }) => network),
  };
  return { ok: true, value };
}

/** What the operator says of the addresses of registries: hosts and networks that are open or closed for connectors. */
export type UpstreamRules = Pick<TunnelRules, "hosts" | "networks" | "neverNetworks">;

const upstreamWanted =
  "hosts and networks with commas: registry.corp:5000, 10.1.0.0/16, and !10.96.0.0/12 for a network that is closed";

/**
 * Parses a list of hosts and networks for connectors, in the grammar of the tunnels' rules. Words and `*.` domains
 * have no meaning here, since public addresses are always open.
 * @param path of the setting, for problems
 */
export function parseUpstreamRules(text: string, path: string): Checked<UpstreamRules> {
  if (text.trim() === "") {
    return { ok: true, value: { hosts: [], networks: [], neverNetworks: [] } };
  }
  const parsed = parseTunnelRules(text, path);
  if (!parsed.ok) {
    const problems = parsed.problems.map((problem) => ({ ...problem, wanted: upstreamWanted }));
    return { ok: false, problems };
  }
  const entries = text.split(",").map((entry) => entry.trim().toLowerCase());
  const foreign = entries.filter((entry) => /^(tunnel|refuse)$|^\*\./.test(entry));
  if (foreign.length > 0) {
    const problems = foreign.map((entry) => ({ path, found: show(entry), wanted: upstreamWanted }));
    return { ok: false, problems };
  }
  const { hosts, networks, neverNetworks } = parsed.value;
  return { ok: true, value: { hosts, networks, neverNetworks } };
}

type TunnelEntry =
  | { readonly kind: "word" }
  | { readonly kind: "host" | "domain"; readonly listed: ListedHost }
  | { readonly kind: "network" | "never"; readonly network: string };

const hostPattern =
  /^(?<wild>\*\.)?(?:\[(?<ipv6>[0-9a-f:.]+)\]|(?<name>[a-z0-9_.-]*[a-z0-9_-])\.?)(?::(?<port>\d{1,5}))?$/;

function readEntry(text: string): TunnelEntry | undefined {
  if (text === "tunnel" || text === "refuse") return { kind: "word" };
  if (text.startsWith("!")) return networkEntry("never", text.slice(1));
  if (text.includes("/")) return networkEntry("network", text);
  const { wild, ipv6, name = "", port: digits } = hostPattern.exec(text)?.groups ?? {};
  const host = hostnameIn(ipv6 === undefined ? name : `[${ipv6}]`);
  const port = digits === undefined ? undefined : Number(digits);
  if (host === undefined || !isPort(port)) return undefined;
  if (wild === undefined) return { kind: "host", listed: { host, port } };
  return isIP(host) === 0 ? { kind: "domain", listed: { host, port } } : undefined;
}

const isPort = (port: number | undefined): boolean =>
  port === undefined || (port > 0 && port < 65_536);

function networkEntry(kind: "network" | "never", network: string): TunnelEntry | undefined {
  const [address = "", bits = ""] = network.split("/");
  const isNetwork = isIP(address) !== 0 && /^\d+$/.test(bits) && ipaddr.isValidCIDR(network);
  return isNetwork ? { kind, network } : undefined;
}
