/** Restarts the kubelets of a cluster one after the other, each at most once for a change, and stops where one does not come back. */
import * as fs from "node:fs/promises";
import { listOf, property } from "../connector/document.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { hasStatus } from "../kube/api-error.ts";
import { providerName } from "../node/credential-provider.ts";
import { findHostProcess } from "../node/kubelet-process.ts";
import {
  changeOf,
  giveUpChange,
  type KubeletRestartOptions,
  noteKnown,
  previousPath,
  restartKubelet,
  restartState,
} from "../node/kubelet-restart.ts";
import { type NodeFiles, readNodeFile, removeNodeFile, writeNodeFile } from "../node/node-file.ts";
import { type KubeletPart, type NodePlaces, writeKubeletPart } from "../node/node-images.ts";
import { removeProviderConfig } from "../node/provider-config.ts";

/** What a rollout is made of. */
export interface KubeletRolloutOptions {
  readonly client: ApiClient;
  /** The namespace of the installation, in which the turn is a Lease. */
  readonly namespace: string;
  readonly nodeName: string;
  /** The name of the host's process in which the kubelet runs. */
  readonly processName: string;
  readonly files: NodeFiles;
  readonly places: NodePlaces;
  /** Where the host's processes are: `/proc`. */
  readonly proc: string;
  /** How long a kubelet may take until it is healthy; a minute unless given. */
  readonly healthyWithinMs?: number;
}

const leases = (namespace: string): string =>
  `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
/** The Lease of the node whose turn it is. */
const turnName = "connectors-node-images";

/**
 * Writes the kubelet's part, and has the kubelet read it.
 * @returns why it does not know it; undefined where it does
 */
export async function rollOutKubeletPart(
  part: KubeletPart & { readonly ok: true },
  options: KubeletRolloutOptions,
): Promise<string | undefined> {
  const { files, places } = options;
  const { path, content } = part.config;
  const change = changeOf(content);
  const restart = restartOptions(options);
  const state = await restartState(restart, change);
  if (state === "failed") {
    return `the kubelet was not healthy a minute after it was restarted with ${path}, and has its old files back: see its log; another NODE_IMAGE_HOSTS is tried again`;
  }
  if (state === "done") {
    await writeKubeletPart(files, places, part);
    await leaveTurn(options); // this process may have been killed before it could
    return undefined;
  }
  if (state === undefined && (await wasStartedAfter(path, content, options))) {
    await noteKnown(change, restart);
    return undefined;
  }
  const other = await takeTurn(options);
  if (other !== undefined) {
    return `the kubelet of ${other} comes first; where it does not get healthy, look at that node, and delete the Lease ${turnName} to go on`;
  }
  if (state === undefined) await keepPrevious(path, files, places);
  await writeKubeletPart(files, places, part);
  if (await restartKubelet(change, restart)) {
    await removeNodeFile(files, previousPath(places.plugins));
    await leaveTurn(options);
    return undefined;
  }
  await bringBack(path, files, places);
  await giveUpChange(change, restart);
  return `the kubelet was not healthy a minute after it was restarted with ${path}, and has its old files back`;
}

const restartOptions = ({
  client,
  nodeName,
  processName,
  files,
  places,
  proc,
  healthyWithinMs = 60_000,
}: KubeletRolloutOptions): KubeletRestartOptions => ({
  files,
  folder: places.plugins,
  findKubelet: () => findHostProcess(fs, proc, processName),
  endProcess: (pid) => process.kill(pid, "SIGTERM"),
  async lastReadyAt() {
    const path = `/api/v1/nodes/${nodeName}`;
    const node = await client.request({ path }).catch(() => undefined);
    const ready = listOf(property(property(node, "status"), "conditions")).find(
      (condition) =>
        property(condition, "type") === "Ready" && property(condition, "status") === "True",
    );
    return Date.parse(String(property(ready, "lastHeartbeatTime"))) || 0;
  },
  now: Date.now,
  healthyWithinMs,
});

/** Whether the configuration is there already, and the kubelet was started since: a person has restarted it. */
async function wasStartedAfter(
  path: string,
  content: string,
  { files, proc, processName }: KubeletRolloutOptions,
): Promise<boolean> {
  if ((await readNodeFile(files, path)) !== content) return false;
  const kubelet = await findHostProcess(fs, proc, processName);
  const { ctimeMs } = await files.lstat(path);
  return kubelet !== undefined && kubelet.startedAtMs > ctimeMs + 1000;
}

/** Takes the turn. @returns the node whose turn it is, where that is another one */
async function takeTurn({
  client,
  namespace,
  nodeName,
}: KubeletRolloutOptions): Promise<string | undefined> {
  const body = {
    apiVersion: "coordination.k8s.io/v1",
    kind: "Lease",
    metadata: { name: turnName, namespace },
    spec: { holderIdentity: nodeName },
  };
  const path = leases(namespace);
  const mine = await client.request({ method: "POST", path, body }).then(
    () => true,
    (error: unknown) => {
      if (hasStatus(error, 409)) return false;
      throw error;
    },
  );
  if (mine) return undefined;
  const holder = holderOf(await client.request({ path: `${path}/${turnName}` }));
  return holder === nodeName ? undefined : holder;
}

/** Leaves the turn to the others, where this node has it. */
async function leaveTurn({ client, namespace, nodeName }: KubeletRolloutOptions): Promise<void> {
  const path = `${leases(namespace)}/${turnName}`;
  const lease = await client.request({ path }).catch((error: unknown) => {
    if (hasStatus(error, 404)) return undefined;
    throw error;
  });
  if (holderOf(lease) !== nodeName) return;
  const uid = property(property(lease, "metadata"), "uid");
  await client.request({ method: "DELETE", path, body: { preconditions: { uid } } });
}

const holderOf = (lease: unknown): string =>
  String(property(property(lease, "spec"), "holderIdentity"));

/** Keeps the configuration that the kubelet runs with, where it has our provider; else a backup is kept anyway. */
async function keepPrevious(path: string, files: NodeFiles, places: NodePlaces): Promise<void> {
  const present = await readNodeFile(files, path);
  if (present?.includes(providerName)) {
    await writeNodeFile(files, previousPath(places.plugins), present, 0o600);
  } else {
    await removeNodeFile(files, previousPath(places.plugins));
  }
}

async function bringBack(path: string, files: NodeFiles, places: NodePlaces): Promise<void> {
  const previous = await readNodeFile(files, previousPath(places.plugins));
  if (previous === undefined) {
    // The kubelet ran without it, so its flags name nothing that would be missing.
    await removeProviderConfig(files, places.config, true);
    return;
  }
  const { mode } = await files.lstat(path);
  await writeNodeFile(files, path, previous, mode & 0o777);
}
