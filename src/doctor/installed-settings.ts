import { listOf, property } from "../connector/document.ts";
import { type EgressRules, readEgressVariables } from "../connector/egress-rules.ts";
import type { DefaultPermission } from "../connector/platform.ts";
import type { Checked } from "../connector/problem.ts";
import type { ClusterReader, Observed } from "./cluster-reader.ts";

/** The operator's settings (daemonset/settings.env), or their defaults where they can't be read. */
export interface InstalledSettings {
  /** All settings as they are in the ConfigMap; undefined where it can't be read. */
  readonly texts: Readonly<Record<string, string>> | undefined;
  readonly audience: string | undefined;
  readonly clusterDomain: string;
  readonly separatePush: boolean;
  readonly requireProxyVerb: boolean;
  readonly defaultPermission: DefaultPermission;
  /** A company's proxy, by which registries are reached, or what is wrong with its settings. */
  readonly egress: Checked<EgressRules | undefined>;
}

/** Reads the ConfigMap that the DaemonSet takes its environment from. */
export async function readInstalledSettings(
  cluster: ClusterReader,
  namespace: string,
  daemonSet: Observed,
): Promise<InstalledSettings> {
  const name = daemonSet.state === "found" ? configMapOf(daemonSet.value) : undefined;
  const path = `/api/v1/namespaces/${namespace}/configmaps/${name}`;
  const configMap = name === undefined ? undefined : await cluster.get(path);
  const texts = configMap?.state === "found" ? textsOf(configMap.value) : undefined;
  const text = (key: string): string | undefined => texts?.[key];
  const clusterDomain = text("CLUSTER_DOMAIN") ?? "cluster.local";
  const egressVariables = {
    EGRESS_PROXY: text("EGRESS_PROXY"),
    EGRESS_NO_PROXY: text("EGRESS_NO_PROXY"),
    EGRESS_RESOLVES: text("EGRESS_RESOLVES"),
  };
  return {
    texts,
    audience: text("AUDIENCE"),
    clusterDomain,
    egress: readEgressVariables(egressVariables, clusterDomain),
    separatePush: text("SEPARATE_PUSH") === "true",
    requireProxyVerb: text("REQUIRE_PROXY_VERB") === "true",
    defaultPermission: text("DEFAULT_PERMISSION") === "namespace" ? "namespace" : "none",
  };
}

/** The entries of a ConfigMap. */
function textsOf(configMap: unknown): Readonly<Record<string, string>> {
  const entries = Object.entries(property(configMap, "data") ?? {});
  return Object.fromEntries(entries.map(([key, value]) => [key, String(value)]));
}

/** The name of the ConfigMap with the settings. It has a hash in it, so only the DaemonSet knows it. */
function configMapOf(daemonSet: unknown): string | undefined {
  const pod = ["spec", "template", "spec"].reduce<unknown>(property, daemonSet);
  const names = listOf(property(pod, "containers"))
    .flatMap((container) => listOf(property(container, "envFrom")))
    .map((source) => property(property(source, "configMapRef"), "name"));
  return names.find((name) => typeof name === "string");
}
