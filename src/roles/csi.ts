import { status } from "@grpc/grpc-js";
import type { CsiSettings, Environment } from "../config/cluster-settings.ts";
import { Unavailable } from "../connector/platform.ts";
import { serviceHosts } from "../connector/proxy-address.ts";
import { caConfigMapKey, caConfigMapName } from "../connector/proxy-keys.ts";
import { servePluginRegistration } from "../csi/plugin-registration.ts";
import { toRpcError } from "../csi/rpc-error.ts";
import { serveCsi } from "../csi/server.ts";
import { systemMounts } from "../csi/volume-mounts.ts";
import { createVolumeNode, type VolumeNode } from "../csi/volume-node.ts";
import { createConnectorFinder } from "../kube/find-connector.ts";
import { createAccessReviewer } from "../kube/may-use.ts";
import type { KubeObject } from "../kube/object-store.ts";
import { removeTaint } from "../kube/startup-taint.ts";
import type { Log } from "../log.ts";
import { type CsiMetrics, createMetrics } from "../metrics/metrics.ts";
import { version } from "../version.ts";
import { type ClusterConnection, connectToCluster } from "./cluster.ts";
import { serveHealth } from "./health-server.ts";
import type { ProcessLog } from "./process-log.ts";
import type { Role } from "./role.ts";
import { rootCertificates } from "./root-certificates.ts";

const healthPort = 9808;
/** How long calls in flight may take at the end: as long as the kubelet waits for one. */
const graceMs = 120_000;
/** The names of the sockets, which never change: the kubelet refuses a second socket of a driver that it knows. */
const csiSocket = "csi.sock";
const registrationSocket = "connectors-csi-reg.sock";

interface AuthorityConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}

/** Starts the csi role on a node of a cluster. */
export async function startCsi(
  settings: CsiSettings,
  environment: Environment,
  { log, droppedLines }: ProcessLog,
): Promise<Role> {
  const cluster = await connectToCluster(environment, log);
  const metrics = createMetrics("csi", droppedLines);
  const connectors = cluster.watchConnectors();
  const configMaps = `/api/v1/namespaces/${settings.namespace}/configmaps`;
  const authority = cluster.watchOne<AuthorityConfigMap>(configMaps, caConfigMapName);
  const findConnector = createConnectorFinder(connectors);
  const node = createVolumeNode({
    findConnector,
    // Only pulls are reviewed here. The proxy refuses a push that needs a right of its own.
    mayUse: createAccessReviewer({
      client: cluster.client,
      now: Date.now,
      separatePush: false,
      requireProxyVerb: settings.requireProxyVerb,
      defaultPermission: settings.defaultPermission,
      allowedMs: 10 * 60_000, // long, since it is reviewed at every republish, and the proxy decides anyway
      findConnector,
      onLookup: metrics.api.access,
      onReject: () => metrics.api.rejected("access"),
    }),
    proxyHostsOf: serviceHosts(settings.clusterDomain),
    audience: settings.audience,
    caCertificate() {
      const certificate = authority.get(caConfigMapName, settings.namespace)?.data?.[
        caConfigMapKey
      ];
      if (certificate !== undefined) return certificate;
      throw new Unavailable(
        `the ConfigMap ${settings.namespace}/${caConfigMapName} with the proxy's certificate does not exist yet: the controller creates it`,
      );
    },
    rootCertificates,
    noProxy: settings.noProxy,
    toolsSeeTargetPath: false,
    mounts: systemMounts,
    now: Date.now,
    log,
  });
  const socketPath = `${settings.pluginFolder}/${csiSocket}`;
  const csi = await serveCsi({
    socketPath,
    node: metered(node, metrics.csi),
    nodeId: settings.nodeName,
    version,
    isReady: () => connectors.ready,
    graceMs,
    log,
  });
  const registration = await servePluginRegistration({
    socketPath: `${settings.registrationFolder}/${registrationSocket}`,
    csiSocketPath: socketPath,
    onRegistered: () => untaint(cluster, settings, log),
    graceMs,
    log,
  });
  metrics.csi.registration(registration.isRegistered);
  const health = await serveHealth({
    port: healthPort,
    notReady() {
      if (!connectors.ready) return connectors.staleReason ?? "the Connectors are not known yet";
      return registration.isRegistered() ? undefined : "the kubelet has not registered the driver";
    },
    metrics: metrics.scrape,
  });
  return {
    async stop() {
      await registration.stop();
      await csi.stop();
      cluster.stop();
      await health.stop();
    },
  };
}

/** Removes the taint that keeps Pods from a node until volumes work there. */
function untaint(
  { client }: ClusterConnection,
  { nodeName, startupTaint }: CsiSettings,
  log: Log,
): void {
  if (startupTaint === "") return;
  removeTaint(client, nodeName, startupTaint).then(
    (wasThere) =>
      wasThere &&
      log("info", "the startup taint was removed from the node", { reference: startupTaint }),
    (error: unknown) =>
      log("error", "the startup taint can't be removed from the node", {
        reference: startupTaint,
        error,
      }),
  );
}

/** Counts volumes and calls. Volumes of an earlier process are counted from their next republish on. */
function metered(node: VolumeNode, metrics: CsiMetrics): VolumeNode {
  const volumes = new Set<string>();
  const measure = async (
    operation: "publish" | "unpublish",
    call: Promise<void>,
  ): Promise<void> => {
    const begin = performance.now();
    const count = (code: status, reason: status): void =>
      metrics.called(operation, {
        code: status[code],
        reason: status[reason],
        durationSeconds: (performance.now() - begin) / 1000,
      });
    try {
      await call;
      count(status.OK, status.OK);
    } catch (error) {
      const { code, reason } = toRpcError(error);
      count(code, reason);
      throw error;
    }
  };
  return {
    stats: node.stats,
    async publish(request, signal) {
      await measure("publish", node.publish(request, signal));
      metrics.volumes(volumes.add(request.targetPath).size);
    },
    async unpublish(request, signal) {
      await measure("unpublish", node.unpublish(request, signal));
      volumes.delete(request.targetPath);
      metrics.volumes(volumes.size);
    },
  };
}
