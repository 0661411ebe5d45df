import { listOf, property } from "../connector/document.ts";
import type { ClusterView, Seen } from "./seen.ts";

/** What the operator has set, as far as it can be seen: daemonset/settings.env. */
export interface InstalledSettings {
  readonly audience: string | undefined;
  readonly clusterDomain: string;
  readonly separatePush: boolean;
  readonly requireProxyVerb: boolean;
}

/** Reads the ConfigMap that the DaemonSet takes its environment from. */
export async function installedSettings(
  view: ClusterView,
  namespace: string,
  daemonSet: Seen,
): Promise<InstalledSettings> {
  const name = daemonSet.state === "found" ? configMapOf(daemonSet.value) : undefined;
  const path = `/api/v1/namespaces/${namespace}/configmaps/${name}`;
  const seen = name === undefined ? undefined : await view.get(path);
  const data = seen?.state === "found" ? property(seen.value, "data") : undefined;
  const text = (key: string): string | undefined => {
    const value = property(data, key);
    return typeof value === "string" ? value : undefined;
  };
  return {
    audience: text("AUDIENCE"),
    clusterDomain: text("CLUSTER_DOMAIN") ?? "cluster.local",
    separatePush: text("SEPARATE_PUSH") === "true",
    requireProxyVerb: text("REQUIRE_PROXY_VERB") === "true",
  };
}

/** Its name carries a hash, so it is to be found here alone. */
function configMapOf(daemonSet: unknown): string | undefined {
  const pod = ["spec", "template", "spec"].reduce<unknown>(property, daemonSet);
  const names = listOf(property(pod, "containers"))
    .flatMap((container) => listOf(property(container, "envFrom")))
    .map((source) => property(property(source, "configMapRef"), "name"));
  return names.find((name) => typeof name === "string");
}
