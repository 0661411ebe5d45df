import { hostnameIn, withBrackets } from "./host-name.ts";
import { clusterNoProxy, type NoProxyRules, parseNoProxy } from "./no-proxy.ts";
import { type Checked, show } from "./problem.ts";

/** How registries and other hosts are reached where that goes by a company's HTTP proxy. */
export interface EgressRules {
  readonly proxy: EgressAddress;
  /** The hosts that are reached directly. */
  readonly noProxy: NoProxyRules;
  /** Whether names that DNS does not know here may be known to the proxy, and are judged as names. */
  readonly resolves: boolean;
}

/** The address of a company's HTTP proxy. */
export interface EgressAddress {
  /** `http://proxy.corp:3128` */
  readonly origin: string;
  /** A name in lower case, or an IP address without brackets. */
  readonly host: string;
  readonly port: number;
  /** Whether the proxy itself speaks TLS. */
  readonly isTls: boolean;
}

/** Names of settings, for problems. */
export interface EgressSettingNames {
  readonly proxy: string;
  readonly noProxy: string;
}

/** The variables of a cluster that say how registries are reached. */
export type EgressVariables = Readonly<
  Record<"EGRESS_PROXY" | "EGRESS_NO_PROXY" | "EGRESS_RESOLVES", string | undefined>
>;

/**
 * Reads the variables of a cluster (daemonset/settings.env). The cluster's own hosts are always reached directly.
 * @param clusterDomain `cluster.local`
 * @returns undefined where there is no proxy
 */
export function readEgressVariables(
  variables: Partial<EgressVariables>,
  clusterDomain: string,
): Checked<EgressRules | undefined> {
  const { EGRESS_PROXY = "", EGRESS_NO_PROXY = "", EGRESS_RESOLVES = "false" } = variables;
  if (!/^(true|false)?$/.test(EGRESS_RESOLVES)) {
    const problem = {
      path: "EGRESS_RESOLVES",
      found: show(EGRESS_RESOLVES),
      wanted: "true or false",
    };
    return { ok: false, problems: [problem] };
  }
  const cluster = clusterNoProxy(clusterDomain).filter((entry) => entry !== ".");
  return parseEgressRules(
    { proxy: EGRESS_PROXY, noProxy: [...cluster, EGRESS_NO_PROXY].join(",") },
    EGRESS_RESOLVES === "true",
    { proxy: "EGRESS_PROXY", noProxy: "EGRESS_NO_PROXY" },
  );
}

/**
 * Parses the address of a company's proxy, and the list of hosts that are reached without it.
 * @returns undefined where there is no proxy
 */
export function parseEgressRules(
  texts: Readonly<Record<keyof EgressSettingNames, string>>,
  resolves: boolean,
  names: EgressSettingNames,
): Checked<EgressRules | undefined> {
  const noProxy = parseNoProxy(texts.noProxy, names.noProxy);
  if (texts.proxy === "") return noProxy.ok ? { ok: true, value: undefined } : noProxy;
  const proxy = parseEgressAddress(texts.proxy, names.proxy);
  if (proxy.ok && noProxy.ok) {
    return { ok: true, value: { proxy: proxy.value, noProxy: noProxy.value, resolves } };
  }
  const problems = [proxy, noProxy].flatMap((read) => (read.ok ? [] : read.problems));
  return { ok: false, problems };
}

const pattern =
  /^(?:(?<scheme>https?):\/\/)?(?<host>\[[0-9a-f:.]+\]|[^/:@\s]+):(?<port>\d{1,5})\/?$/;

/** A text with a login in it is never shown. */
function parseEgressAddress(text: string, path: string): Checked<EgressAddress> {
  if (text.includes("@")) {
    const wanted =
      "http://HOST:PORT or https://HOST:PORT; its login comes from the Secret connectors-egress-login, or from the file of --egress-login";
    return { ok: false, problems: [{ path, found: "an address with a login", wanted }] };
  }
  const {
    scheme = "http",
    host: given = "",
    port: digits,
  } = pattern.exec(text.toLowerCase())?.groups ?? {};
  const host = hostnameIn(given);
  const port = Number(digits);
  if (host === undefined || !(port > 0 && port < 65_536)) {
    const wanted = "http://HOST:PORT, or https://HOST:PORT for a proxy that itself speaks TLS";
    return { ok: false, problems: [{ path, found: show(text), wanted }] };
  }
  const origin = `${scheme}://${withBrackets(host)}:${port}`;
  return { ok: true, value: { origin, host, port, isTls: scheme === "https" } };
}
