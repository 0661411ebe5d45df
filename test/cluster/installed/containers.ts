import { join } from "node:path";
import type { Cluster } from "../cluster.ts";

export interface ContainerChoice {
  readonly node: string;
  /** The container's name in its Pod; any unless given, that of the Pod's network included. */
  readonly container?: string;
  /** The Pod's name; any unless given. */
  readonly pod?: string;
}

/** Sends a signal to the first process of containers, past the kubelet. @returns how many there were */
export async function signalContainers(
  cluster: Cluster,
  { node, container, pod }: ContainerChoice,
  signal: NodeJS.Signals,
): Promise<number> {
  const socket = join(cluster.folder, node, "containerd.sock");
  const ctr = (...args: string[]): Promise<string> =>
    cluster.run(["ctr", "--address", socket, "-n", "k8s.io", ...args], { node });
  const label = (name: string, value: string): string => `labels."io.kubernetes.${name}"==${value}`;
  const filters = [
    ...(container === undefined ? [] : [label("container.name", container)]),
    ...(pod === undefined ? [] : [label("pod.name", pod)]),
  ];
  const ids = (await ctr("containers", "ls", "-q", filters.join(","))).split("\n");
  const running = (await ctr("tasks", "ls"))
    .split("\n")
    .filter((line) => line.trim().endsWith("RUNNING"))
    .map((line) => line.split(/\s+/, 1)[0]);
  const chosen = ids.filter((id) => id !== "" && running.includes(id));
  for (const id of chosen) await ctr("tasks", "kill", "--signal", signal, id);
  return chosen.length;
}
