import { connectorApiVersion } from "../connector/connector.ts";
import type { Credential } from "../connector/credential.ts";
import { property } from "../connector/document.ts";
import { caConfigMapName, keysSecretName } from "../connector/proxy-keys.ts";
import { checkApiServer, checkDefinition, minorVersion } from "./check-api-server.ts";
import { checkDriver } from "./check-driver.ts";
import { checkEgress, egressCredential, egressLoginName } from "./check-egress.ts";
import { checkCertificates, checkKeys, checkProxyService } from "./check-proxy.ts";
import { checkPushRights, type ObservedRights } from "./check-push-rights.ts";
import { checkSettings } from "./check-settings.ts";
import { checkController, checkDaemonSet, checkRegistration } from "./check-workloads.ts";
import type { ClusterReader, Observed } from "./cluster-reader.ts";
import { type InstalledSettings, readInstalledSettings } from "./installed-settings.ts";
import type { Finding } from "./report.ts";

/** The names of what an installation consists of. */
export interface InstallationNames {
  readonly namespace: string;
  readonly driver: string;
  readonly daemonSet: string;
  readonly controller: string;
  readonly proxyService: string;
}

/** Where the manifests install everything, unless an overlay says otherwise. */
export const defaultInstallNamespace = "connectors-system";

/**
 * Finds out where everything is installed, by the DaemonSet.
 * @returns the default where there is none, or where DaemonSets can't be listed
 */
export async function findInstallNamespace(
  cluster: ClusterReader,
  { daemonSet }: Pick<InstallationNames, "daemonSet">,
): Promise<string> {
  const labelSelector = "app.kubernetes.io/name=oci-connector";
  const found = await cluster.list("/apis/apps/v1/daemonsets", { labelSelector });
  const metadata = (found.state === "found" ? found.value : [])
    .map((object) => property(object, "metadata"))
    .find((one) => property(one, "name") === daemonSet);
  return String(property(metadata, "namespace") ?? defaultInstallNamespace);
}

/** What to check of an installation, and how. */
export interface DiagnoseInstallationOptions {
  readonly cluster: ClusterReader;
  /** The API server's address, for the report. */
  readonly server: string;
  readonly names: InstallationNames;
  /** The time, in milliseconds since 1970. */
  readonly now: () => number;
}

/** What is known of an installation. */
export interface Installation {
  readonly findings: readonly Finding[];
  readonly settings: InstalledSettings;
  /** The Service of all proxies. */
  readonly proxyService: Observed;
  /** The login at a company's proxy; `unread` where its Secret can't be read. */
  readonly egressLogin: Credential | "unread" | undefined;
}

/** Checks everything that all connectors share. @returns one finding alone where the API server does not respond */
export async function diagnoseInstallation(
  options: DiagnoseInstallationOptions,
): Promise<Installation | { readonly findings: readonly [Finding] }> {
  const { cluster, server, names, now } = options;
  const version = await cluster.get("/version");
  const apiServer = checkApiServer(version, server);
  if (apiServer.verdict === "failed") return { findings: [apiServer] };
  const observed = await observeInstallation(cluster, names);
  const settings = await readInstalledSettings(cluster, names.namespace, observed.daemonSet);
  const { audience, egress } = settings;
  const egressSecret: Observed =
    egress.ok && egress.value !== undefined
      ? await cluster.get(`/api/v1/namespaces/${names.namespace}/secrets/${egressLoginName}`)
      : { state: "missing" };
  const ref = (name: string): { readonly namespace: string; readonly name: string } => ({
    namespace: names.namespace,
    name,
  });
  return {
    settings,
    proxyService: observed.proxyService,
    egressLogin: egressCredential(egressSecret),
    findings: [
      apiServer,
      checkDefinition(observed.definition, observed.discovered),
      checkDriver(observed.driver, { audience, minor: minorVersion(version) }),
      checkSettings(settings.texts, { CSIDriver: observed.driver, DaemonSet: observed.daemonSet }),
      checkDaemonSet(observed.daemonSet, names),
      checkRegistration(observed.csiNodes, observed.nodes, names),
      checkController(observed.controller, ref(names.controller)),
      checkCertificates(observed.certificates, names.namespace, now()),
      checkKeys(observed.keys, observed.certificates, names.namespace),
      checkProxyService(observed.proxyService, observed.slices, ref(names.proxyService)),
      checkPushRights(await observeRights(cluster, settings), settings, names.namespace),
      ...checkEgress(egress, egressSecret, names.namespace),
    ],
  };
}

/**
 * Reads what an installation consists of, some objects at a time, so that the API server does not get all requests at
 * once.
 */
async function observeInstallation(cluster: ClusterReader, names: InstallationNames) {
  const storage = "/apis/storage.k8s.io/v1";
  const core = `/api/v1/namespaces/${names.namespace}`;
  const apps = `/apis/apps/v1/namespaces/${names.namespace}`;
  const endpointSlices = `/apis/discovery.k8s.io/v1/namespaces/${names.namespace}/endpointslices`;
  const crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
  const labelSelector = `kubernetes.io/service-name=${names.proxyService}`;
  const [definition, discovered, driver, daemonSet, controller] = await Promise.all([
    cluster.get(`${crds}/connectors.connectors.alauda.io`),
    cluster.get(`/apis/${connectorApiVersion}`),
    cluster.get(`${storage}/csidrivers/${names.driver}`),
    cluster.get(`${apps}/daemonsets/${names.daemonSet}`),
    cluster.get(`${apps}/deployments/${names.controller}`),
  ]);
  const [certificates, keys, proxyService] = await Promise.all([
    cluster.get(`${core}/configmaps/${caConfigMapName}`),
    cluster.get(`${core}/secrets/${keysSecretName}`),
    cluster.get(`${core}/services/${names.proxyService}`),
  ]);
  const [csiNodes, nodes, slices] = await Promise.all([
    cluster.list(`${storage}/csinodes`),
    cluster.list("/api/v1/nodes"),
    cluster.list(endpointSlices, { labelSelector }),
  ]);
  return {
    definition,
    discovered,
    driver,
    daemonSet,
    controller,
    certificates,
    keys,
    proxyService,
    csiNodes,
    nodes,
    slices,
  };
}

/** Reads who may do what, where that is of interest. It may be much, so one kind is read after the other. */
async function observeRights(
  cluster: ClusterReader,
  { separatePush, requireProxyVerb }: InstalledSettings,
): Promise<ObservedRights> {
  const rbac = "/apis/rbac.authorization.k8s.io/v1";
  const isSeparate = separatePush && requireProxyVerb;
  const list = async (plural: string): Promise<Observed<readonly unknown[]>> =>
    isSeparate ? { state: "missing" } : cluster.list(`${rbac}/${plural}`);
  return {
    roles: await list("roles"),
    clusterRoles: await list("clusterroles"),
    roleBindings: await list("rolebindings"),
    clusterRoleBindings: await list("clusterrolebindings"),
  };
}
