import { lookup } from "node:dns/promises";
import type { Environment } from "../config/cluster-settings.ts";
import type { DoctorSettings } from "../config/doctor-command.ts";
import { showRef } from "../connector/connector-ref.ts";
import { driverName } from "../csi/server.ts";
import type { LookupAddresses } from "../doctor/check-connector.ts";
import { createClusterReader } from "../doctor/cluster-reader.ts";
import { diagnoseConnector } from "../doctor/diagnose-connector.ts";
import {
  diagnoseInstallation,
  findInstallNamespace,
  type Installation,
} from "../doctor/diagnose-installation.ts";
import { type Diagnosis, diagnosisOf, type Section } from "../doctor/report.ts";
import {
  type ApiAccess,
  createInClusterAccess,
  loadKubeconfigAccess,
  serviceAccountFolder,
} from "../kube/api-access.ts";
import { createApiClient } from "../kube/api-client.ts";
import { createAccessReviewer } from "../kube/may-use.ts";
import type { Egress } from "../upstream/egress.ts";
import { createProbe } from "../upstream/probe.ts";
import { createUpstreams } from "../upstream/upstream.ts";
import { egressWithLogin } from "./egress.ts";
import { installedNames } from "./installed-names.ts";

/** A registry's response counts as cut after so long without a byte. */
const bodyTimeoutMs = 15_000;

/**
 * Checks an installation, and a connector where one is named: in a Pod as its ServiceAccount, elsewhere as the user of
 * kubectl's kubeconfig.
 * @throws Error where the kubeconfig can't be used
 */
export async function doctor(
  settings: DoctorSettings,
  environment: Environment,
): Promise<Diagnosis> {
  const isInCluster = settings.context === undefined && isInPod(environment);
  const access = isInCluster ? podAccess(environment) : await userAccess(settings);
  const sections = await examine(settings, access, isInCluster ? resolveHost : undefined);
  return diagnosisOf(sections, settings.output);
}

/** Whether the Pod's own ServiceAccount is to be used. Whoever has set KUBECONFIG in a Pod wants the kubeconfig. */
const isInPod = ({ KUBERNETES_SERVICE_HOST, KUBECONFIG }: Environment): boolean =>
  KUBERNETES_SERVICE_HOST !== undefined && !KUBECONFIG;

const podAccess = (environment: Environment): ApiAccess =>
  createInClusterAccess({
    host: environment.KUBERNETES_SERVICE_HOST ?? "",
    port: environment.KUBERNETES_SERVICE_PORT ?? "443",
    folder: serviceAccountFolder,
  });

async function userAccess({ context }: DoctorSettings): Promise<ApiAccess> {
  return loadKubeconfigAccess(context === undefined ? {} : { context });
}

const resolveHost: LookupAddresses = async (host) =>
  (await lookup(host, { all: true })).map(({ address }) => address);

/** Runs all checks. @param resolve resolves hosts; undefined outside of the cluster, where nobody knows its names */
export async function examine(
  settings: DoctorSettings,
  access: ApiAccess,
  resolve: LookupAddresses | undefined,
): Promise<readonly Section[]> {
  const { connector, serviceAccount } = settings;
  const client = createApiClient({ access });
  const cluster = createClusterReader(client);
  const { proxyService, nodeDaemonSet: daemonSet, controllerDeployment } = installedNames;
  const installNamespace =
    settings.installNamespace ?? (await findInstallNamespace(cluster, { daemonSet }));
  const names = {
    namespace: installNamespace,
    driver: driverName,
    daemonSet,
    controller: controllerDeployment,
    proxyService,
  };
  const server = access.server.origin;
  const installation = await diagnoseInstallation({ cluster, server, names, now: Date.now });
  const title = `Installation in namespace ${installNamespace}`;
  const shared = { title, findings: installation.findings };
  if (connector === undefined || !("settings" in installation)) return [shared];
  const egress = resolve === undefined ? undefined : await egressOfInstallation(installation);
  const upstreams = createUpstreams(bodyTimeoutMs, { egress });
  try {
    const findings = await diagnoseConnector({
      cluster,
      ref: connector,
      account: serviceAccount,
      installNamespace,
      installation,
      resolve,
      mayUse: createAccessReviewer({ client, now: Date.now, ...installation.settings }),
      proxyServiceName: proxyService,
      probe: createProbe(upstreams),
      signal: new AbortController().signal,
    });
    return [shared, { title: `Connector ${showRef(connector)}`, findings }];
  } finally {
    upstreams.destroy();
  }
}

/** The way that the proxies of an installation take, where this process is in its cluster. */
async function egressOfInstallation({
  settings: { egress },
  egressLogin,
}: Installation): Promise<Egress | undefined> {
  if (!egress.ok || egress.value === undefined) return undefined;
  return egressWithLogin(egress.value, async () =>
    egressLogin === "unread" ? undefined : egressLogin,
  );
}
