import { isNamespace, namespaceRule } from "../connector/connector-ref.ts";
import { parseGoDurationSeconds } from "../connector/duration.ts";
import { type Checked, type Problem, show } from "../connector/problem.ts";
import { parseTunnelRules, type TunnelRules } from "../connector/tunnel-rules.ts";

/** What every role in a cluster has to know. */
export interface ClusterSettings {
  /** Where all of this is installed. */
  readonly namespace: string;
  /** Whom the tokens in volumes are made for. */
  readonly audience: string;
  readonly clusterDomain: string;
}

export interface CsiSettings extends ClusterSettings {
  readonly nodeName: string;
  /** The kubelet's folder for this driver's socket. */
  readonly pluginFolder: string;
  /** The folder in which the kubelet looks for drivers. */
  readonly registrationFolder: string;
  /** Hosts that tools ask directly: the entries of `no_proxy`. */
  readonly noProxy: readonly string[];
  readonly requireProxyVerb: boolean;
  /** The taint to take away from the node once volumes work there; empty for none. */
  readonly startupTaint: string;
}

export interface ProxySettings extends ClusterSettings {
  readonly separatePush: boolean;
  readonly requireProxyVerb: boolean;
  /** Where clients may go through the proxy, beside their connectors. */
  readonly tunnels: TunnelRules;
  /** Milliseconds for which tokens of Pods that run are taken after they have expired. */
  readonly tokenGrace: number;
  /** Addresses of the node and of the API server, to which no tunnel leads. */
  readonly nearAddresses: readonly string[];
}

export interface ControllerSettings extends ClusterSettings {
  /** Which replica this is. */
  readonly podName: string;
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** The environment variables of daemonset/settings.env, and what Kubernetes says of the Pod. */
export function readCsiSettings(environment: Environment): Checked<CsiSettings> {
  return readSettings(environment, (read) => ({
    ...clusterSettings(read),
    nodeName: read("NODE_NAME", dnsSubdomain, "the node's name"),
    pluginFolder: read("KUBELET_PLUGIN", absolutePath, pathRule),
    registrationFolder: read("KUBELET_REGISTRATION", absolutePath, pathRule),
    noProxy: [
      ...clusterNoProxy(read("CLUSTER_DOMAIN", dnsSubdomain, domainRule)),
      ...read("NO_PROXY_HOSTS", noProxyList, "hosts, domains and networks with commas", "")
        .split(",")
        .filter((entry) => entry !== ""),
    ],
    requireProxyVerb: flag(read, "REQUIRE_PROXY_VERB"),
    startupTaint: read("STARTUP_TAINT", /^([A-Za-z0-9./_-]+)?$/, "the key of a taint", ""),
  }));
}

export function readProxySettings(environment: Environment): Checked<ProxySettings> {
  const tunnels = parseTunnelRules(environment.TUNNEL ?? "tunnel", "TUNNEL");
  const settings = readSettings(environment, (read) => ({
    ...clusterSettings(read),
    separatePush: flag(read, "SEPARATE_PUSH"),
    requireProxyVerb: flag(read, "REQUIRE_PROXY_VERB"),
    tokenGrace: 1000 * (parseGoDurationSeconds(read("TOKEN_GRACE", isGrace, graceRule, "0s")) ?? 0),
    nearAddresses: [environment.NODE_IPS ?? "", environment.KUBERNETES_SERVICE_HOST ?? ""]
      .flatMap((addresses) => addresses.split(","))
      .filter((address) => address !== ""),
  }));
  if (settings.ok && tunnels.ok) {
    return { ok: true, value: { ...settings.value, tunnels: tunnels.value } };
  }
  const problems = [settings, tunnels].flatMap((read) => (read.ok ? [] : read.problems));
  return { ok: false, problems };
}

export function readControllerSettings(environment: Environment): Checked<ControllerSettings> {
  return readSettings(environment, (read) => ({
    ...clusterSettings(read),
    podName: read("POD_NAME", dnsSubdomain, "the name of this Pod"),
  }));
}

/** Hosts in and around a Pod, which its tools ask directly. */
export const clusterNoProxy = (clusterDomain: string): readonly string[] => [
  ...["localhost", "127.0.0.1", "::1", ".svc", `.${clusterDomain}`],
];

const longestGrace = 24 * 60 * 60;
const isGrace = (text: string): boolean =>
  (parseGoDurationSeconds(text) ?? Number.POSITIVE_INFINITY) <= longestGrace;
const graceRule = "a duration up to 24h, such as 4h";

const absolutePath = /^(\/[A-Za-z0-9_.-]+)+$/;
const pathRule = "an absolute path";
export const dnsSubdomain: RegExp = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/;
export const domainRule = "the cluster's DNS domain, such as cluster.local";
/** What can stand in an environment file as it is: `.example.com,10.0.0.0/8,registry:5000`. */
const noProxyList = /^[A-Za-z0-9.:/,[\]*_-]*$/;

type Read = (
  name: string,
  rule: RegExp | ((text: string) => boolean),
  wanted: string,
  ifAbsent?: string,
) => string;

const flag = (read: Read, name: string): boolean =>
  read(name, /^(true|false)$/, "true or false", "false") === "true";

function clusterSettings(read: Read): ClusterSettings {
  return {
    namespace: read("POD_NAMESPACE", isNamespace, namespaceRule),
    audience: read(
      "AUDIENCE",
      /^[A-Za-z0-9:/._-]+$/,
      "the audience of the CSIDriver's tokenRequests",
    ),
    clusterDomain: read("CLUSTER_DOMAIN", dnsSubdomain, domainRule),
  };
}

/** Reads all, so that every value that is wrong is named at once. */
function readSettings<T>(environment: Environment, settings: (read: Read) => T): Checked<T> {
  const problems = new Map<string, Problem>();
  const value = settings((name, rule, wanted, ifAbsent) => {
    const text = environment[name] ?? ifAbsent;
    const isRight = typeof rule === "function" ? rule : (given: string) => rule.test(given);
    if (text !== undefined && isRight(text)) return text;
    problems.set(name, { path: name, found: show(text), wanted });
    return "";
  });
  return problems.size > 0 ? { ok: false, problems: [...problems.values()] } : { ok: true, value };
}
