import { type AllowedAudience, parseAllowedAudiences } from "../connector/audience.ts";
import { isNamespace, namespaceRule } from "../connector/connector-ref.ts";
import { parseGoDurationSeconds } from "../connector/duration.ts";
import { type EgressRules, readEgressVariables } from "../connector/egress-rules.ts";
import { type ImageHosts, imagesAudience, parseImageHosts } from "../connector/image-hosts.ts";
import { clusterNoProxy } from "../connector/no-proxy.ts";
import type { DefaultPermission } from "../connector/platform.ts";
import { type Checked, type Problem, show } from "../connector/problem.ts";
import {
  parseTunnelRules,
  parseUpstreamRules,
  type TunnelRules,
  type UpstreamRules,
} from "../connector/tunnel-rules.ts";

/** The settings of every role in a cluster. */
export interface ClusterSettings {
  /** The namespace of the installation. */
  readonly namespace: string;
  /** The audience of the tokens in volumes. */
  readonly audience: string;
  /** The DNS domain of the cluster: `cluster.local`. */
  readonly clusterDomain: string;
}

/** The settings of the csi role on a node. */
export interface CsiSettings extends ClusterSettings {
  readonly nodeName: string;
  /** The kubelet's folder for this driver's socket. */
  readonly pluginFolder: string;
  /** The folder in which the kubelet looks for drivers. */
  readonly registrationFolder: string;
  /** Hosts that tools reach without a proxy: the entries of `no_proxy`. */
  readonly noProxy: readonly string[];
  /** Whether the use of a Connector needs a right beside that to read it. */
  readonly requireProxyVerb: boolean;
  /** Who may use a Connector without a Role. */
  readonly defaultPermission: DefaultPermission;
  /** The key of the taint to remove from the node once volumes work there; empty for none. */
  readonly startupTaint: string;
}

/** The settings of what connects to registries. */
export interface UpstreamSettings {
  /** Which addresses connectors may lead to, with the networks that TUNNEL closes. */
  readonly upstreams: UpstreamRules;
  /** IP addresses of the node. */
  readonly nodeAddresses: readonly string[];
  /** The address of the API server's Service, where it has one. */
  readonly apiServiceAddresses: readonly string[];
  /** A company's proxy, by which registries are reached; undefined where there is none. */
  readonly egress: EgressSettings | undefined;
  /** For whom the tokens of connectors' identities may be, beside their registry's origin. */
  readonly allowedAudiences: readonly AllowedAudience[];
}

/** A company's proxy, and where its login is. */
export interface EgressSettings extends EgressRules {
  /** A folder with the keys of a Secret, or a file with `user:password`; undefined where there is no login. */
  readonly loginPath: string | undefined;
}

/** The settings of the proxy role on a node. */
export interface ProxySettings extends ClusterSettings, UpstreamSettings {
  /** Whether a push needs a right of its own. */
  readonly separatePush: boolean;
  /** Whether the use of a Connector needs a right beside that to read it. */
  readonly requireProxyVerb: boolean;
  /** Who may use a Connector without a Role. */
  readonly defaultPermission: DefaultPermission;
  /** Which hosts clients may reach through the proxy, beside their connectors. */
  readonly tunnels: TunnelRules;
  /** For how many milliseconds after their end tokens of running Pods are still accepted. */
  readonly tokenGraceMs: number;
  /** The registries whose images nodes pull through the proxy; where there is none, its mirror is closed. */
  readonly imageHosts: ImageHosts;
  /** What becomes of such an image for which there is no Connector. */
  readonly imagesWithoutConnector: "refuse" | "anonymous";
}

/** The settings of the controller role. */
export interface ControllerSettings extends ClusterSettings, UpstreamSettings {
  /** The name of this replica's Pod. */
  readonly podName: string;
}

/** The environment variables of this process. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the settings of the csi role: the environment variables of daemonset/settings.env, and those that Kubernetes
 * sets for the Pod.
 * @returns the settings, or everything that is wrong with them
 */
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
    requireProxyVerb: readFlag(read, "REQUIRE_PROXY_VERB"),
    defaultPermission: readDefaultPermission(read),
    startupTaint: read("STARTUP_TAINT", /^([A-Za-z0-9./_-]+)?$/, "the key of a taint", ""),
  }));
}

/** Reads the settings of the proxy role. @returns the settings, or everything that is wrong with them */
export function readProxySettings(environment: Environment): Checked<ProxySettings> {
  const tunnels = parseTunnelRules(environment.TUNNEL ?? "tunnel", "TUNNEL");
  const imageHosts = parseImageHosts(environment.NODE_IMAGE_HOSTS ?? "", "NODE_IMAGE_HOSTS");
  const settings = readSettings(environment, (read) => ({
    ...clusterSettings(read),
    imagesWithoutConnector: readImagesWithoutConnector(read),
    separatePush: readFlag(read, "SEPARATE_PUSH"),
    requireProxyVerb: readFlag(read, "REQUIRE_PROXY_VERB"),
    defaultPermission: readDefaultPermission(read),
    tokenGraceMs:
      1000 * (parseGoDurationSeconds(read("TOKEN_GRACE", isGrace, graceRule, "0s")) ?? 0),
  }));
  const upstreams = readUpstreamSettings(environment);
  if (settings.ok && tunnels.ok && upstreams.ok && imageHosts.ok) {
    const value = {
      ...settings.value,
      ...upstreams.value,
      tunnels: tunnels.value,
      imageHosts: imageHosts.value,
    };
    return { ok: true, value };
  }
  return { ok: false, problems: problemsOf(settings, tunnels, upstreams, imageHosts) };
}

/** All problems, each once: two settings may have read the same variable. */
export function problemsOf(...checked: readonly Checked<unknown>[]): readonly Problem[] {
  const problems = checked.flatMap((read) => (read.ok ? [] : read.problems));
  const isFirst = ({ path, found }: Problem, index: number): boolean =>
    problems.findIndex((other) => other.path === path && other.found === found) === index;
  return problems.filter(isFirst);
}

/** A network that is closed for tunnels is closed for connectors, too. */
function readUpstreamSettings(environment: Environment): Checked<UpstreamSettings> {
  const upstreams = parseUpstreamRules(environment.UPSTREAM_NETWORKS ?? "", "UPSTREAM_NETWORKS");
  const tunnels = parseTunnelRules(environment.TUNNEL ?? "tunnel", "TUNNEL");
  const egress = readEgressVariables(environment, environment.CLUSTER_DOMAIN ?? "");
  const audiences = parseAllowedAudiences(environment.OIDC_AUDIENCES ?? "", "OIDC_AUDIENCES");
  if (!upstreams.ok || !tunnels.ok || !egress.ok || !audiences.ok) {
    return { ok: false, problems: problemsOf(upstreams, tunnels, egress, audiences) };
  }
  const neverNetworks = [...upstreams.value.neverNetworks, ...tunnels.value.neverNetworks];
  const listOf = (addresses = ""): readonly string[] =>
    addresses.split(",").filter((address) => address !== "");
  return {
    ok: true,
    value: {
      upstreams: { ...upstreams.value, neverNetworks },
      nodeAddresses: listOf(environment.NODE_IPS),
      apiServiceAddresses: listOf(environment.KUBERNETES_SERVICE_HOST),
      egress: egress.value && { ...egress.value, loginPath: environment.EGRESS_LOGIN || undefined },
      allowedAudiences: audiences.value,
    },
  };
}

/** Reads the settings of the controller role. @returns the settings, or everything that is wrong with them */
export function readControllerSettings(environment: Environment): Checked<ControllerSettings> {
  const settings = readSettings(environment, (read) => ({
    ...clusterSettings(read),
    podName: read("POD_NAME", dnsSubdomain, "the name of this Pod"),
  }));
  const upstreams = readUpstreamSettings(environment);
  return settings.ok && upstreams.ok
    ? { ok: true, value: { ...settings.value, ...upstreams.value } }
    : { ok: false, problems: problemsOf(settings, upstreams) };
}

const maxGraceSeconds = 24 * 60 * 60;
const isGrace = (text: string): boolean =>
  (parseGoDurationSeconds(text) ?? Number.POSITIVE_INFINITY) <= maxGraceSeconds;
const graceRule = "a duration up to 24h, such as 4h";

/** A path as settings have it. */
export const absolutePath: RegExp = /^(\/[A-Za-z0-9_.-]+)+$/;
/** What is wanted of a path, for messages. */
export const pathRule = "an absolute path";
/** A DNS name in lower case: RFC 1123, as Kubernetes reads it. */
export const dnsSubdomain: RegExp = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/;
/** What is wanted of a cluster's domain, for messages. */
export const domainRule = "the cluster's DNS domain, such as cluster.local";
/** What can stand in an environment file as it is: `.example.com,10.0.0.0/8,registry:5000`. */
const noProxyList = /^[A-Za-z0-9.:/,[\]*_-]*$/;

/** Reads one environment variable. What is wrong with it is remembered, and an empty text returned. */
export type ReadVariable = (
  name: string,
  rule: RegExp | ((text: string) => boolean),
  wanted: string,
  ifAbsent?: string,
) => string;

const readFlag = (read: ReadVariable, name: string): boolean =>
  read(name, /^(true|false)$/, "true or false", "false") === "true";

const readDefaultPermission = (read: ReadVariable): DefaultPermission =>
  read("DEFAULT_PERMISSION", /^(none|namespace)$/, "none or namespace", "none") === "namespace"
    ? "namespace"
    : "none";

const readImagesWithoutConnector = (read: ReadVariable): "refuse" | "anonymous" =>
  read("NODE_IMAGES_WITHOUT_CONNECTOR", /^(refuse|anonymous)$/, "refuse or anonymous", "refuse") ===
  "anonymous"
    ? "anonymous"
    : "refuse";

const isVolumesAudience = (text: string): boolean =>
  /^[A-Za-z0-9:/._-]+$/.test(text) && text !== imagesAudience;

/** Reads the settings that every role has. */
export function clusterSettings(read: ReadVariable): ClusterSettings {
  return {
    namespace: read("POD_NAMESPACE", isNamespace, namespaceRule),
    audience: read(
      "AUDIENCE",
      isVolumesAudience,
      `the audience of the CSIDriver's tokenRequests, which is not ${imagesAudience}`,
    ),
    clusterDomain: read("CLUSTER_DOMAIN", dnsSubdomain, domainRule),
  };
}

/** Reads all variables, so that one message names every value that is wrong. */
export function readSettings<T>(
  environment: Environment,
  settings: (read: ReadVariable) => T,
): Checked<T> {
  const problems = new Map<string, Problem>();
  const value = settings((name, rule, wanted, ifAbsent) => {
    const text = environment[name] ?? ifAbsent;
    const isValid = typeof rule === "function" ? rule : (given: string) => rule.test(given);
    if (text !== undefined && isValid(text)) return text;
    problems.set(name, { path: name, found: show(text), wanted });
    return "";
  });
  return problems.size > 0 ? { ok: false, problems: [...problems.values()] } : { ok: true, value };
}
