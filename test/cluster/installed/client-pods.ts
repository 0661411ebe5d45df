import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { signalContainers } from "./containers.ts";
import { type InstalledCluster, until } from "./installed-cluster.ts";
import { pod } from "./objects.ts";

/** What a loop of pod-client.ts writes at its end. */
export interface LoopResult {
  readonly count: number;
  readonly failures: readonly string[];
  /** Milliseconds that the slowest request took. */
  readonly longest: number;
}

export interface ClientPods {
  /** The ConfigMap with the program, which has to be there first. */
  readonly configMap: object;
  /** A Pod that runs pod-client.ts on a node, with a volume for the connector `harbor`. */
  pod(name: string, node: string, args: readonly string[]): object;
  /** Waits until a loop has had its first answer: a container is Ready long before. */
  loops(name: string): Promise<void>;
  /** Of what it has written so far. */
  lastLine(name: string): Promise<unknown>;
  /** Ends a loop. @returns what became of it */
  endLoop(name: string, node: string): Promise<LoopResult>;
  /** GETs a URL again and again on both nodes, all the while that something happens. @returns how that went on each node */
  whilePulling(url: string, action: () => Promise<void>): Promise<readonly LoopResult[]>;
}

export const nodes = ["node1", "node2"] as const;

export async function clientPods(
  cluster: InstalledCluster,
  namespace: string,
): Promise<ClientPods> {
  const script = await readFile(join(import.meta.dirname, "pod-client.ts"), "utf8");
  const logOf = (name: string): Promise<string> =>
    cluster.kubectl(["logs", name, "-n", namespace]).catch(() => "");
  const clients: ClientPods = {
    configMap: {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { namespace, name: "client" },
      data: { "pod-client.ts": script },
    },
    pod(name, node, args) {
      const made = pod(
        { namespace, name },
        {
          volume: { connectors: "harbor" },
          image: "localhost/oci-connector:test",
          command: ["/bin/node", "/client/pod-client.ts", ...args],
          pod: { nodeName: node, terminationGracePeriodSeconds: 20 },
        },
      ) as { spec: { containers: { volumeMounts: object[] }[]; volumes: object[] } };
      made.spec.volumes.push({ name: "client", configMap: { name: "client" } });
      made.spec.containers[0]?.volumeMounts.push({ name: "client", mountPath: "/client" });
      return made;
    },
    async loops(name) {
      await until(async () => (await logOf(name)) !== "", `the loop ${name} gets no answer`);
    },
    async lastLine(name) {
      const log = await logOf(name);
      return JSON.parse(log.trim().split("\n").at(-1) ?? "");
    },
    async endLoop(name, node) {
      await signalContainers(cluster, { node, container: "main", pod: name }, "SIGTERM");
      await cluster.wait("jsonpath={.status.phase}=Succeeded", `pod/${name}`, namespace);
      const result = (await clients.lastLine(name)) as LoopResult;
      await cluster.kubectl(["delete", "pod", name, "-n", namespace]);
      return result;
    },
    async whilePulling(url, action) {
      const names = nodes.map((node) => `loop-${node}`);
      await cluster.apply(...nodes.map((node) => clients.pod(`loop-${node}`, node, ["loop", url])));
      for (const name of names) await clients.loops(name);
      await action();
      await sleep(2_000);
      return Promise.all(nodes.map((node) => clients.endLoop(`loop-${node}`, node)));
    },
  };
  return clients;
}

/** One line for people, of how long it took and what it cost. */
export function tellLoops(what: string, results: readonly LoopResult[]): void {
  const failed = results.flatMap(({ failures }) => failures);
  const longest = Math.max(...results.map((result) => result.longest));
  const count = results.reduce((sum, result) => sum + result.count, 0);
  console.log(
    `      ${what}: ${count} pulls, ${failed.length} failed, the longest took ${longest} ms`,
  );
}

/** The different ones, since one cause makes many. */
export const failuresOf = (results: readonly LoopResult[]): readonly string[] => [
  ...new Set(results.flatMap(({ failures }) => failures)),
];
