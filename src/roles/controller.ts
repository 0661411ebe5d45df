import type { ControllerSettings, Environment } from "../config/cluster-settings.ts";
import type { Connector } from "../connector/connector.ts";
import { showRef } from "../connector/connector-ref.ts";
import { startController } from "../controller/controller.ts";
import { systemClock } from "../controller/work-queue.ts";
import { createMetrics } from "../metrics/metrics.ts";
import { createProbe } from "../upstream/probe.ts";
import { createUpstreams } from "../upstream/upstream.ts";
import { connectToCluster } from "./cluster.ts";
import { egressOf } from "./egress.ts";
import { serveHealth } from "./health-server.ts";
import { apiServerAudiences, createClusterIdentities, identityLoginsOf } from "./identities.ts";
import { installedNames } from "./installed-names.ts";
import { apiEndpoints, nearAddresses } from "./own-addresses.ts";
import type { ProcessLog } from "./process-log.ts";
import type { Role } from "./role.ts";

const healthPort = 9810;
/** A probe fails after so long without a byte. */
const bodyTimeoutMs = 15_000;

/** Starts the controller role of a cluster. @throws Error where there is no usable access to the cluster */
export async function startClusterController(
  settings: ControllerSettings,
  environment: Environment,
  { log, droppedLines }: ProcessLog,
): Promise<Role> {
  const egress = await egressOf(settings.egress);
  const cluster = await connectToCluster(environment, log);
  const metrics = createMetrics("controller", droppedLines);
  const apiServer = cluster.watchOne(apiEndpoints.collection, apiEndpoints.name);
  const policy = {
    rules: settings.upstreams,
    nearAddresses: () => nearAddresses(settings, apiServer),
  };
  const upstreams = createUpstreams(bodyTimeoutMs, { policy, egress });
  const identities = createClusterIdentities({
    client: cluster.client,
    settings,
    policy,
    egress,
    apiAudiences: await apiServerAudiences(environment),
    metrics: metrics.identities,
    log,
  });
  const logConcealed = (connector: Connector, error: unknown): void =>
    log("warning", "a registry at an internal address can't be reached", {
      connector: showRef(connector),
      error,
    });
  const controller = startController({
    client: cluster.client,
    probe: createProbe(upstreams, logConcealed),
    identityLogins: identityLoginsOf(identities),
    names: { ...installedNames, ...settings, installNamespace: settings.namespace },
    instance: settings.podName,
    clock: systemClock,
    random: Math.random,
    log,
    onReconcile({ connector, outcome, durationMs, conditions }) {
      metrics.controller.reconciled(outcome, durationMs / 1000);
      if (outcome === "gone") {
        metrics.controller.forget(connector);
        void metrics.identities.forget(connector);
        identities.store.drop(connector);
      }
      if (conditions !== undefined) metrics.controller.conditions(connector, conditions);
    },
  });
  const health = await serveHealth({
    port: healthPort,
    notReady: () =>
      controller.ready() ? undefined : "the watched objects have not been listed yet",
    metrics: metrics.scrape,
  });
  return {
    async stop() {
      await controller.stop();
      upstreams.destroy();
      identities.stop();
      cluster.stop();
      await health.stop();
    },
  };
}
