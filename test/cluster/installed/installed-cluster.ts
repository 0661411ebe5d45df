/**
 * A cluster of two nodes in which everything is installed, as daemonset/ says: one for all suites that
 * want it, since to make it takes half a minute.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { writeProgramImage } from "../../../tools/image/write.ts";
import { eventually } from "../../support/eventually.ts";
import type { Cluster } from "../cluster.ts";
import { openCluster, startOwnCluster } from "../own-cluster.ts";

export const system = "connectors-system";
const overlay = join(import.meta.dirname, "../install");

export interface InstalledCluster extends Cluster {
  /** Milliseconds from `kubectl apply` until everything was Ready. */
  readonly readyAfter: number;
  apply(...items: readonly object[]): Promise<string>;
  remove(...items: readonly object[]): Promise<string>;
  /** An object, undefined where there is none. */
  get<T = KubeObject>(kind: string, name: string, namespace?: string): Promise<T | undefined>;
  list<T = KubeObject>(kind: string, namespace: string, ...args: string[]): Promise<readonly T[]>;
  /** Waits as `kubectl wait` does. */
  wait(condition: string, what: string, namespace: string, seconds?: number): Promise<void>;
  exec(namespace: string, pod: string, command: readonly string[]): Promise<string>;
}

export interface KubeObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly uid: string;
    readonly generation: number;
  };
  // biome-ignore lint/suspicious/noExplicitAny: a test names what it wants to see of an object
  readonly spec: any;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  readonly status: any;
}

let shared: Promise<InstalledCluster> | undefined;

/** The one that is there, or a new one. */
export function installedCluster(): Promise<InstalledCluster> {
  shared ??= start();
  return shared;
}

/** Ends it; the next one who wants it gets a new one. */
export async function endInstalledCluster(): Promise<void> {
  const ending = shared;
  shared = undefined;
  await (await ending?.catch(() => undefined))?.stop();
}

/** While a test is written: `cli.ts up DIR 2`, `cli.ts image DIR`, and DIR in this variable. It goes on afterwards. */
const { OCI_CONNECTOR_TEST_CLUSTER: kept } = process.env;

async function start(): Promise<InstalledCluster> {
  if (kept) {
    const cluster = { ...(await openCluster(kept)), stop: async () => {} };
    return { ...withShortcuts(cluster), readyAfter: await install(cluster) };
  }
  const cluster = await startOwnCluster({ nodes: 2 });
  try {
    const archive = join(cluster.folder, "program.tar");
    writeProgramImage(archive, "localhost/oci-connector:test");
    await cluster.load(archive);
    await rm(archive);
    return { ...withShortcuts(cluster), readyAfter: await install(cluster) };
  } catch (error) {
    await cluster.stop();
    throw error;
  }
}

/**
 * @param folder the overlay
 * @param namespace into which it installs
 * @returns milliseconds until everything was Ready
 */
export async function install(
  cluster: Cluster,
  folder: string = overlay,
  namespace: string = system,
): Promise<number> {
  const begin = performance.now();
  await cluster.kubectl(["apply", "-k", folder]);
  for (const what of ["daemonset/connectors-node", "deployment/connectors-controller"]) {
    await cluster.kubectl(["rollout", "status", what, "-n", namespace, "--timeout=120s"]);
  }
  return performance.now() - begin;
}

export function withShortcuts(cluster: Cluster): Omit<InstalledCluster, "readyAfter"> {
  const { kubectl } = cluster;
  const asList = (items: readonly object[]): string =>
    JSON.stringify({ apiVersion: "v1", kind: "List", items });
  return {
    ...cluster,
    apply: (...items) => kubectl(["apply", "-f", "-"], asList(items)),
    remove: (...items) =>
      kubectl(["delete", "--ignore-not-found", "--wait=false", "-f", "-"], asList(items)),
    async get(kind, name, namespace) {
      const where = namespace === undefined ? [] : ["-n", namespace];
      const text = await kubectl(["get", kind, name, ...where, "--ignore-not-found", "-o", "json"]);
      return text === "" ? undefined : JSON.parse(text);
    },
    async list(kind, namespace, ...args) {
      const text = await kubectl(["get", kind, "-n", namespace, ...args, "-o", "json"]);
      return JSON.parse(text).items;
    },
    async wait(condition, what, namespace, seconds = 60) {
      const args = [`--for=${condition}`, what, "-n", namespace, `--timeout=${seconds}s`];
      await kubectl(["wait", ...args]);
    },
    exec: (namespace, pod, command) => kubectl(["exec", "-n", namespace, pod, "--", ...command]),
  };
}

/** Asks the API server again and again until it says what is wanted. */
export async function until<T>(
  question: () => Promise<T | undefined | false>,
  what: string,
  seconds = 60,
): Promise<T> {
  return eventually(question, () => what, seconds * 1000);
}
