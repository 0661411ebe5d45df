import { dnsAddress } from "./cluster-dns.ts";
import { firstProcess, type Node } from "./namespaces.ts";
import { runCommand } from "./run-command.ts";

/** The addresses of a node: its own, and the range of its Pods. */
export const nodeAddress = (number: number): string => `10.250.0.${number}`;
export const podRange = (number: number): string => `10.244.${number}.0/24`;

/** What kube-proxy leads elsewhere. */
const serviceRange = "10.96.0.0/12";

/** Gives the first node the API server's address and that of DNS, and joins a second one to it by a veth pair. */
export async function connectNodes(first: Node, second: Node | undefined): Promise<void> {
  const onFirst = await ipOn(first);
  // The addresses sit on lo: kubelet refuses one of 127.0.0.0/8, not the interface.
  await onFirst(`addr add ${nodeAddress(1)}/32 dev lo`);
  await onFirst(`addr add ${dnsAddress}/32 dev lo`);
  if (second === undefined) return;
  const onSecond = await ipOn(second);
  await onFirst(`link add to-node2 type veth peer name eth0 netns ${await firstProcess(second)}`);
  await onFirst("link set to-node2 up");
  await onFirst(`route add ${nodeAddress(2)} dev to-node2 src ${nodeAddress(1)}`);
  await onFirst(`route add ${podRange(2)} via ${nodeAddress(2)} dev to-node2 onlink`);
  await onSecond(`addr add ${nodeAddress(2)}/32 dev eth0`);
  await onSecond("link set eth0 up");
  await onSecond(`route add 10.250.0.0/24 dev eth0 src ${nodeAddress(2)}`);
  await onSecond(`route add ${podRange(1)} via ${nodeAddress(1)} dev eth0 onlink`);
  // Any will do: a packet of the node's own network gets its real destination after it has a route.
  await onFirst(`route add ${serviceRange} dev to-node2`);
  await onSecond(`route add ${serviceRange} dev eth0`);
}

/** Only the network is entered, so that the processes of other nodes have numbers, too. */
async function ipOn(node: Node): Promise<(command: string) => Promise<string>> {
  const target = await firstProcess(node);
  const enter = ["nsenter", "--target", `${target}`, "--net", "ip"];
  return (command) => runCommand([...enter, ...command.split(" ")]);
}
