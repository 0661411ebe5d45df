import * as fs from "node:fs/promises";
import { join } from "node:path";
import type { Environment } from "../config/cluster-settings.ts";
import type { NodeImagesMode, NodeImagesSettings } from "../config/node-images-settings.ts";
import { property } from "../connector/document.ts";
import { withBrackets } from "../connector/host-name.ts";
import { sharedNamespace } from "../connector/image-hosts.ts";
import { caConfigMapKey, caConfigMapName } from "../connector/proxy-keys.ts";
import { parseRegistryAddress } from "../connector/registry-address.ts";
import type { ApiClient } from "../kube/api-client.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { WatchedCache } from "../kube/watched-cache.ts";
import { describeError, type Log } from "../log.ts";
import { createMetrics } from "../metrics/metrics.ts";
import { forgetRestarts } from "../node/kubelet-restart.ts";
import { kubeletProblem } from "../node/kubelet-version.ts";
import { mountedFiles } from "../node/mounted-files.ts";
import type { NodeFiles } from "../node/node-file.ts";
import {
  installNodeImages,
  type NodePlaces,
  planKubeletPart,
  registryHosts,
  removeNodeImages,
} from "../node/node-images.ts";
import type { ProxyEndpoint, SkippedHost } from "../node/registry-hosts.ts";
import { type ClusterConnection, connectToCluster } from "./cluster.ts";
import { serveHealth } from "./health-server.ts";
import { installedNames } from "./installed-names.ts";
import { rollOutKubeletPart } from "./kubelet-rollout.ts";
import type { ProcessLog } from "./process-log.ts";
import { clusterAddresses, servicesPath } from "./proxy-service.ts";
import type { Role } from "./role.ts";

const healthPort = 9811;
/** The node's files are looked at again after this time: others may have changed them. */
const intervalMs = 60_000;
/** The same where they are not as wanted. */
const retryMs = 5_000;

/** Why nothing is done at first: the caches have nothing yet. */
const unknownYet = "what the node's files follow from is not known yet";

/** What the node's files follow from. */
interface Watched {
  readonly authority: WatchedCache<KubeObject>;
  readonly service: WatchedCache<KubeObject>;
  /** The Connectors of `kube-public`; undefined where no pattern needs them. */
  readonly shared: WatchedCache<KubeObject> | undefined;
}

/**
 * Starts the role that tells a node's container runtime and kubelet of the proxy. It is ready once the node's files are as
 * wanted. They stay when it ends.
 */
export async function startNodeImages(
  settings: NodeImagesSettings,
  environment: Environment,
  { log, droppedLines }: ProcessLog,
): Promise<Role> {
  const cluster = await connectToCluster(environment, log);
  const metrics = createMetrics("node-images", droppedLines);
  const watched = watch(cluster, settings);
  let notReady: string | undefined = unknownYet;
  const health = await serveHealth({
    port: healthPort,
    notReady: () => notReady,
    metrics: metrics.scrape,
  });
  const reportSkipped = createSkippedReport(log, metrics.nodeImages.skipped);
  const settle = async (): Promise<boolean> => {
    const before = notReady;
    notReady = await settleNode(cluster, settings, watched, reportSkipped).catch(
      (error: unknown) => `the node's files can't be brought up to date: ${describeError(error)}`,
    );
    const isDone = notReady === undefined;
    if (notReady !== before) {
      const message = isDone
        ? "the node's files are as wanted"
        : "the node's files are not as wanted";
      log(isDone ? "info" : "warning", message, { reason: notReady ?? settings.mode });
    }
    return isDone;
  };
  const loop = createLoop(settle);
  for (const cache of Object.values(watched)) {
    cache?.onChange(loop.run);
    void cache?.synced.then(loop.run);
  }
  loop.run();
  return {
    async stop() {
      await loop.stop();
      cluster.stop();
      await health.stop();
    },
  };
}

function watch(cluster: ClusterConnection, { namespace, imageHosts }: NodeImagesSettings): Watched {
  const hasPatterns = [...imageHosts].some((host) => host.startsWith("*."));
  return {
    authority: cluster.watchOne(`/api/v1/namespaces/${namespace}/configmaps`, caConfigMapName),
    service: cluster.watchOne(servicesPath(namespace), installedNames.proxyService),
    shared: hasPatterns ? cluster.watchConnectors(sharedNamespace) : undefined,
  };
}

/**
 * Brings the node's files into the wanted state.
 * @returns why they are not; undefined where they are
 */
async function settleNode(
  { client }: ClusterConnection,
  settings: NodeImagesSettings,
  watched: Watched,
  reportSkipped: (skipped: readonly SkippedHost[]) => void,
): Promise<string | undefined> {
  const { mode, imageHosts } = settings;
  const folders = nodeFolders(settings);
  if (mode === "remove" || mode === "purge" || imageHosts.size === 0) {
    reportSkipped([]);
    return takeBack(folders, mode);
  }
  const caches = Object.values(watched).filter((cache) => cache !== undefined);
  if (caches.some(({ ready }) => !ready)) return unknownYet;
  const proxy = endpoint(settings, watched);
  if (proxy === undefined) {
    return `the Service ${installedNames.proxyService} or the ConfigMap ${caConfigMapName} is not there yet`;
  }
  const problem =
    (await problemOfKubelet(client, settings)) ?? (await rollOut(client, settings, folders));
  if (problem !== undefined) return problem;
  const hosts =
    mode === "prepare" ? [] : registryHosts(imageHosts, sharedAddresses(watched.shared));
  const { files, places } = folders;
  const installed = await installNodeImages(files, places, { imageHosts, hosts, proxy });
  if (!installed.ok) return installed.reason;
  reportSkipped(installed.skipped);
  return undefined;
}

/** @returns what stays, and why; undefined where nothing does */
async function takeBack(
  { files, places }: NodeFolders,
  mode: NodeImagesMode,
): Promise<string | undefined> {
  const isGone = await removeNodeImages(files, places, mode === "purge");
  if (!isGone) {
    return `the kubelet's configuration in ${places.config.folder} and its plug-in stay, without effect: take the kubelet's flags back, and set NODE_IMAGES=purge`;
  }
  await forgetRestarts(files, places.plugins);
  return undefined;
}

async function problemOfKubelet(
  client: ApiClient,
  { nodeName, providerFile }: NodeImagesSettings,
): Promise<string | undefined> {
  const node = await client.request({ path: `/api/v1/nodes/${nodeName}` });
  const version = property(property(property(node, "status"), "nodeInfo"), "kubeletVersion");
  return kubeletProblem(typeof version === "string" ? version : "", { file: providerFile });
}

/** Where kubelets are restarted, has this one know its part before images come through the proxy. */
async function rollOut(
  client: ApiClient,
  { imageHosts, namespace, nodeName, restartKubelet }: NodeImagesSettings,
  { files, places }: NodeFolders,
): Promise<string | undefined> {
  if (restartKubelet === undefined) return undefined;
  const part = await planKubeletPart(files, places, imageHosts);
  if (!part.ok) return part.reason;
  return rollOutKubeletPart(part, {
    client,
    files,
    places,
    namespace,
    nodeName,
    processName: restartKubelet,
    proc: "/proc",
  });
}

interface NodeFolders {
  readonly files: NodeFiles;
  readonly places: NodePlaces;
}

/** The folders of the node under its own paths, and the calls that reach them where they are mounted. */
function nodeFolders(settings: NodeImagesSettings): NodeFolders {
  const { certsFolder, providerBin, providerFolder, providerFile, mounts } = settings;
  return {
    files: mountedFiles(
      fs,
      new Map([
        [certsFolder, join(mounts, "certs.d")],
        [providerBin, join(mounts, "bin")],
        [providerFolder, join(mounts, "config.d")],
      ]),
    ),
    places: {
      certs: certsFolder,
      plugins: providerBin,
      config: { folder: providerFolder, file: providerFile },
    },
  };
}

function endpoint(
  { proxy, namespace }: NodeImagesSettings,
  { authority, service }: Watched,
): ProxyEndpoint | undefined {
  const configMap = authority.get(caConfigMapName, namespace);
  const caCertificates = property(property(configMap, "data"), caConfigMapKey);
  const [address] = service.list().flatMap(clusterAddresses);
  const url = proxy ?? (address && `https://${withBrackets(address)}`);
  return typeof caCertificates === "string" && url ? { url, caCertificates } : undefined;
}

const sharedAddresses = (connectors: Watched["shared"]): Parameters<typeof registryHosts>[1] =>
  (connectors?.list() ?? []).flatMap((connector) => {
    const address = parseRegistryAddress(property(property(connector, "spec"), "address"), "");
    return address.ok ? [address.value] : [];
  });

/** Logs each registry that is skipped once, and again where the reason is another. */
function createSkippedReport(
  log: Log,
  setCount: (count: number) => void,
): (skipped: readonly SkippedHost[]) => void {
  let known = new Map<string, string>();
  return (skipped) => {
    for (const { host, reason } of skipped) {
      if (known.get(host) !== reason) {
        log("warning", "images of a registry don't come through the proxy", { host, reason });
      }
    }
    known = new Map(skipped.map(({ host, reason }) => [host, reason]));
    setCount(skipped.length);
  };
}

/**
 * Runs an action that never throws, one at a time: when it is asked for, and again some time after it has ended.
 * @param action returns whether all is well
 */
function createLoop(action: () => Promise<boolean>): { run(): void; stop(): Promise<void> } {
  let running: Promise<void> | undefined;
  let isDue = false;
  let isEnding = false;
  let timer: NodeJS.Timeout | undefined;
  const goOn = async (): Promise<void> => {
    let isWell = true;
    while (isDue && !isEnding) {
      isDue = false;
      isWell = await action();
    }
    running = undefined;
    if (!isEnding) timer = setTimeout(run, isWell ? intervalMs : retryMs);
  };
  const run = (): void => {
    clearTimeout(timer);
    isDue = true;
    running ??= goOn();
  };
  return {
    run,
    async stop() {
      isEnding = true;
      clearTimeout(timer);
      await running;
    },
  };
}
