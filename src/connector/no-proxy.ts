import { isIP } from "node:net";
import ipaddr from "ipaddr.js";
import { hostnameIn } from "./host-name.ts";
import type { Checked } from "./problem.ts";
import { readEntries } from "./setting-list.ts";

/** Which hosts are reached without a proxy: the entries of a list as `no_proxy` has them. */
export type NoProxyRules = readonly NoProxyRule[];

/** One entry of such a list. */
interface NoProxyRule {
  /** Says whether a host is meant: a name in lower case, or an IP address without brackets. */
  readonly matches: (hostname: string) => boolean;
  /** The one port that is meant; undefined for every port. */
  readonly port: number | undefined;
}

const wanted =
  "* for every host, or entries with commas: harbor.corp (with its subdomains), .corp (subdomains alone), 10.1.2.3, 10.0.0.0/8, " +
  "each but the last with a port where one alone is meant (harbor.corp:8443)";

/**
 * Parses a list of hosts in the syntax of Go's programs (golang.org/x/net/http/httpproxy), which curl's is nearly the same
 * as. Entries are separated by commas or spaces. An entry that those programs would pass over in silence is a problem here.
 * @param path of the setting, for problems
 */
export function parseNoProxy(text: string, path: string): Checked<NoProxyRules> {
  const entries = text
    .toLowerCase()
    .split(/[\s,]+/)
    .filter((entry) => entry !== "");
  const { values, problems } = readEntries(entries, readEntry, { path, wanted });
  return problems.length > 0 ? { ok: false, problems } : { ok: true, value: values };
}

/**
 * Whether a host is reached without a proxy. The machine itself always is: `localhost` and loopback addresses, as with
 * Go's programs. Networks mean hosts that are IP addresses; names are not looked up for them.
 * @param hostname a name in lower case, or an IP address without brackets
 */
export function isWithoutProxy(rules: NoProxyRules, hostname: string, port: number): boolean {
  const host = hostname.replace(/\.$/, ""); // the root of DNS, which is implied
  return (
    isThisMachine(host) || rules.some((rule) => (rule.port ?? port) === port && rule.matches(host))
  );
}

const isThisMachine = (hostname: string): boolean =>
  hostname === "localhost" ||
  (isIP(hostname) !== 0 && ipaddr.process(hostname).range() === "loopback");

const withPort = /^(?<host>\[[0-9a-f:.]+\]|[^:]*)(?::(?<port>\d{1,5}))?$/;

function readEntry(entry: string): NoProxyRule | undefined {
  if (entry === "*") return { matches: () => true, port: undefined };
  if (entry.includes("/")) return networkRule(entry);
  if (isIP(entry) === 6) return hostRule(`[${entry}]`, undefined);
  const { host = "", port: digits } = withPort.exec(entry)?.groups ?? {};
  const port = digits === undefined ? undefined : Number(digits);
  const isPort = port === undefined || (port > 0 && port < 65_536);
  return isPort ? hostRule(host, port) : undefined;
}

function networkRule(network: string): NoProxyRule | undefined {
  const [address = "", bits = ""] = network.split("/");
  if (isIP(address) === 0 || !/^\d+$/.test(bits) || !ipaddr.isValidCIDR(network)) return undefined;
  const [base, length] = ipaddr.parseCIDR(network);
  const matches = (hostname: string): boolean => {
    if (isIP(hostname) === 0) return false;
    const other = ipaddr.process(hostname);
    return other.kind() === base.kind() && other.match(base, length);
  };
  return { matches, port: undefined };
}

function hostRule(host: string, port: number | undefined): NoProxyRule | undefined {
  const isSuffix = /^(\*?\.)/.test(host);
  const name = hostnameIn(host.replace(/^\*?\./, ""));
  if (name === undefined) return undefined;
  if (isIP(name) !== 0) {
    return isSuffix ? undefined : { matches: (hostname) => isSameAddress(hostname, name), port };
  }
  const isBelow = (hostname: string): boolean => hostname.endsWith(`.${name}`);
  return {
    matches: isSuffix ? isBelow : (hostname) => hostname === name || isBelow(hostname),
    port,
  };
}

const isSameAddress = (hostname: string, address: string): boolean =>
  isIP(hostname) !== 0 &&
  ipaddr.process(hostname).toString() === ipaddr.process(address).toString();

/** Hosts in a Pod and in its cluster, which tools reach without a proxy: entries of `no_proxy`. */
export const clusterNoProxy = (clusterDomain: string): readonly string[] => [
  "localhost",
  "127.0.0.1",
  "::1",
  ".svc",
  `.${clusterDomain}`,
];
