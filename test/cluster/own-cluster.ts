import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { requirePrograms } from "../../tools/require-programs.ts";
import { removeEmptyCgroups } from "./cgroups.ts";
import type { Cluster, ClusterOptions } from "./cluster.ts";
import { startDns } from "./cluster-dns.ts";
import { type ControlPlane, startControllers, startControlPlane } from "./control-plane.ts";
import { kubectlWith } from "./kubectl.ts";
import { buildKubernetes } from "./kubernetes-programs.ts";
import { createNode, dyingWithParent, endNode, inside, readNode } from "./namespaces.ts";
import { connectNodes, nodeAddress, podRange } from "./node-network.ts";
import { isAlive, type ProcessId, processIdOf } from "./process-id.ts";
import { type Place, programNames, restartProgram, startProgram, stopProgram } from "./program.ts";
import { runCommand } from "./run-command.ts";
import { loadImage, startWorker } from "./worker-node.ts";

/** What a cluster's folder says of it. */
interface ClusterState {
  /** The process without which it makes no sense. */
  readonly owner: ProcessId | undefined;
  readonly nodes: readonly string[];
  readonly bin: string;
  readonly kubeconfig: string;
}

const stateFile = (folder: string): string => join(folder, "cluster.json");

const folderPrefix = "oci-connector-cluster-";

const programsForAll = ["etcd", "openssl"];
const programsForNodes = [
  "containerd",
  "runc",
  "iptables",
  "busybox",
  "conntrack",
  "ip",
  "nsenter",
  "unshare",
  "/usr/lib/cni/bridge",
];

/** Starts a cluster on this machine. Nothing of it is left behind where that fails. */
export async function startOwnCluster(options: ClusterOptions): Promise<Cluster> {
  await requirePrograms([...programsForAll, ...(options.nodes > 0 ? programsForNodes : [])]);
  const bin = await buildKubernetes();
  await endOrphans();
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), folderPrefix)));
  const nodes = ["node1", "node2"].slice(0, options.nodes);
  const owner = options.outliveUs ? undefined : await processIdOf(process.pid);
  // It is written first, so that what a failure leaves can be told, and ended.
  await writeState(folder, { owner, nodes, bin, kubeconfig: "" });
  try {
    const start = options.nodes === 0 ? startWithoutNodes : startWithNodes;
    const { kubeconfig } = await start(folder, bin, nodes, owner !== undefined);
    await writeState(folder, { owner, nodes, bin, kubeconfig });
    return await openCluster(folder);
  } catch (error) {
    await endCluster(folder);
    throw error;
  }
}

/** @throws where a cluster is there already */
async function writeState(folder: string, state: ClusterState): Promise<void> {
  const flag = state.kubeconfig === "" ? "wx" : "w";
  await writeFile(stateFile(folder), JSON.stringify(state), { flag });
}

const withoutNodes = (folder: string, tied: boolean): Place => ({
  folder,
  prefix: tied ? dyingWithParent : [],
});

function startWithoutNodes(
  folder: string,
  bin: string,
  _nodes: readonly string[],
  tied: boolean,
): Promise<ControlPlane> {
  const place = withoutNodes(folder, tied);
  return startControlPlane({ place, bin, address: "127.0.0.1", hasNodes: false });
}

async function startWithNodes(
  folder: string,
  bin: string,
  names: readonly string[],
  tied: boolean,
): Promise<ControlPlane> {
  const nodes = await Promise.all(names.map((name) => createNode(name, join(folder, name), tied)));
  const [first, second] = nodes;
  if (first === undefined) throw new Error("a cluster with nodes needs one");
  await connectNodes(first, second);
  const place: Place = { folder: first.folder, prefix: await inside(first) };
  const address = nodeAddress(1);
  const controlPlane = await startControlPlane({ place, bin, address, hasNodes: true });
  await startControllers(place, bin, controlPlane);
  await startDns(place, bin, folder, controlPlane);
  await Promise.all(
    nodes.map((node, index) =>
      startWorker({
        node,
        address: nodeAddress(index + 1),
        podRange: podRange(index + 1),
        bin,
        controlPlane,
      }),
    ),
  );
  return controlPlane;
}

/** A test run that was killed has left the folder of its cluster, whose programs the kernel has ended. */
async function endOrphans(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    if (!name.startsWith(folderPrefix)) continue;
    const folder = join(tmpdir(), name);
    const state = await readState(folder).catch(() => undefined);
    if (state?.owner && !(await isAlive(state.owner))) await endCluster(folder);
  }
}

async function readState(folder: string): Promise<ClusterState> {
  return JSON.parse(await readFile(stateFile(folder), "utf8")) as ClusterState;
}

/** What to put before a command, and into its environment, to run it on a node. */
export async function enterCommand(
  folder: string,
  name?: string,
): Promise<{ readonly argv: readonly string[]; readonly env: Readonly<Record<string, string>> }> {
  const { nodes, kubeconfig } = await readState(folder);
  const { prefix } = await placeOf(folder, name ?? nodes[0]);
  return { argv: prefix, env: { KUBECONFIG: kubeconfig } };
}

async function placeOf(folder: string, name: string | undefined): Promise<Place> {
  if (name === undefined) return withoutNodes(folder, false);
  const node = await readNode(join(folder, name));
  return { folder: node.folder, prefix: await inside(node) };
}

/** A cluster that was started in this folder, by whomever. */
export async function openCluster(folder: string): Promise<Cluster> {
  const state = await readState(folder);
  const { prefix } = await placeOf(folder, state.nodes[0]);
  const { bin, kubeconfig } = state;
  return {
    own: true,
    folder,
    kubeconfig,
    kubectl: kubectlWith(kubeconfig, { prefix, bin }),
    async run(argv, { node, input } = {}) {
      const enter = await enterCommand(folder, node);
      return runCommand([...enter.argv, ...argv], { input, env: enter.env });
    },
    async start(name, argv) {
      const place = await placeOf(folder, state.nodes[0]);
      await startProgram(place, name, argv);
      return () => readFile(join(place.folder, `${name}.log`), "utf8");
    },
    async load(image) {
      const loadTo = async (name: string): Promise<void> =>
        loadImage(await readNode(join(folder, name)), image);
      await Promise.all(state.nodes.map(loadTo));
    },
    async restart(program, { node, ...options } = {}) {
      await restartProgram(await placeOf(folder, node ?? state.nodes[0]), program, options);
    },
    stop: () => endCluster(folder),
  };
}

/**
 * Ends a cluster, also one that was started only in part, and removes its folder. A node's processes,
 * mounts and links end with its first process; nothing in them has anything to save.
 */
export async function endCluster(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  const found = names.map((name) => readNode(join(folder, name)).catch(() => undefined));
  const nodes = (await Promise.all(found)).filter((node) => node !== undefined);
  for (const node of nodes) await endNode(node);
  const place = withoutNodes(folder, false);
  for (const name of await programNames(place)) await stopProgram(place, name);
  await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  if (nodes.length > 0) await removeEmptyCgroups();
}
