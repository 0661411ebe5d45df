import { connectorApiVersion } from "../connector/connector.ts";
import { listOf, property } from "../connector/document.ts";
import { caConfigMapName, keysSecretName } from "../connector/proxy-keys.ts";
import { checkApiServer, checkDefinition, minorVersion } from "./check-api-server.ts";
import { checkDriver } from "./check-driver.ts";
import { checkCertificates, checkKeys, checkProxyService } from "./check-proxy.ts";
import { checkController, checkDaemonSet, checkRegistration } from "./check-workloads.ts";
import type { ClusterView, Seen } from "./cluster-reader.ts";
import type { Finding } from "./report.ts";

/** How the things of an installation are called. */
export interface InstallationNames {
  readonly namespace: string;
  readonly driver: string;
  readonly daemonSet: string;
  readonly controller: string;
  readonly proxyService: string;
}

export interface InstallationOptions {
  readonly view: ClusterView;
  /** The API server's address. */
  readonly server: string;
  readonly names: InstallationNames;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

export interface Installation {
  readonly findings: readonly Finding[];
  readonly settings: InstalledSettings;
  /** The Service of all proxies. */
  readonly proxyService: Seen;
}

/** Looks at everything that all connectors share. @returns undefined for the rest where nobody answers */
export async function examineInstallation(
  options: InstallationOptions,
): Promise<Installation | { readonly findings: readonly [Finding] }> {
  const { view, server, names, now } = options;
  const version = await view.get("/version");
  const apiServer = checkApiServer(version, server);
  if (apiServer.verdict === "failed") return { findings: [apiServer] };
  const seen = await look(view, names);
  const settings = await installedSettings(view, names.namespace, seen.daemonSet);
  const { audience } = settings;
  const ref = (name: string): { readonly namespace: string; readonly name: string } => ({
    ...{ namespace: names.namespace, name },
  });
  return {
    settings,
    proxyService: seen.proxyService,
    findings: [
      apiServer,
      checkDefinition(seen.definition, seen.discovered),
      checkDriver(seen.driver, { audience, minor: minorVersion(version) }),
      checkDaemonSet(seen.daemonSet, names),
      checkRegistration(seen.csiNodes, seen.nodes, names),
      checkController(seen.controller, ref(names.controller)),
      checkCertificates(seen.certificates, names.namespace, now()),
      checkKeys(seen.keys, seen.certificates, names.namespace),
      checkProxyService(seen.proxyService, seen.slices, ref(names.proxyService)),
    ],
  };
}

/** Some at a time. */
async function look(view: ClusterView, names: InstallationNames) {
  const storage = "/apis/storage.k8s.io/v1";
  const core = `/api/v1/namespaces/${names.namespace}`;
  const apps = `/apis/apps/v1/namespaces/${names.namespace}`;
  const endpointSlices = `/apis/discovery.k8s.io/v1/namespaces/${names.namespace}/endpointslices`;
  const crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
  const labelSelector = `kubernetes.io/service-name=${names.proxyService}`;
  const [definition, discovered, driver, daemonSet, controller] = await Promise.all([
    view.get(`${crds}/connectors.connectors.alauda.io`),
    view.get(`/apis/${connectorApiVersion}`),
    view.get(`${storage}/csidrivers/${names.driver}`),
    view.get(`${apps}/daemonsets/${names.daemonSet}`),
    view.get(`${apps}/deployments/${names.controller}`),
  ]);
  const [certificates, keys, proxyService] = await Promise.all([
    view.get(`${core}/configmaps/${caConfigMapName}`),
    view.get(`${core}/secrets/${keysSecretName}`),
    view.get(`${core}/services/${names.proxyService}`),
  ]);
  const [csiNodes, nodes, slices] = await Promise.all([
    view.list(`${storage}/csinodes`),
    view.list("/api/v1/nodes"),
    view.list(endpointSlices, { labelSelector }),
  ]);
  return {
    ...{ definition, discovered, driver, daemonSet, controller },
    ...{ certificates, keys, proxyService, csiNodes, nodes, slices },
  };
}

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
