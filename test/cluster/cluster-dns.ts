import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ControlPlane } from "./control-plane.ts";
import { type Place, startProgram, waitUntil } from "./program.ts";
import { runCommand } from "./run-command.ts";

/** The address of CoreDNS, and of the Service in front of it. */
export const dnsAddress = "10.250.0.10";
const serviceAddress = "10.96.0.10";

/** Names and addresses that stand here are known to Pods: `10.250.0.1 harbor.example.com`. It is read every 2 s. */
export const dnsHostsFile = (clusterFolder: string): string => join(clusterFolder, "dns-hosts");

/**
 * Starts CoreDNS as a plain process behind a Service without selector. A name that is neither in the
 * cluster nor in the hosts file does not exist (NXDOMAIN), so that a client's error is the real one.
 */
export async function startDns(
  place: Place,
  bin: string,
  clusterFolder: string,
  { kubeconfig, kubectl }: ControlPlane,
): Promise<void> {
  const file = (name: string): string => join(place.folder, name);
  await writeFile(dnsHostsFile(clusterFolder), "");
  // CoreDNS orders its plugins when it is compiled; that an empty zone comes last is what makes it a fallback.
  await writeFile(file("empty.zone"), ". 5 IN SOA node1. node1. 1 60 60 60 5\n");
  await writeFile(
    file("Corefile"),
    `.:53 {
  bind ${dnsAddress}
  errors
  ready ${dnsAddress}:8181
  cache 5
  kubernetes cluster.local in-addr.arpa {
    kubeconfig ${kubeconfig}
    ttl 5
    fallthrough in-addr.arpa
  }
  hosts ${dnsHostsFile(clusterFolder)} {
    reload 2s
    fallthrough
  }
  file ${file("empty.zone")} .
}
`,
  );
  await startProgram(place, "coredns", [join(bin, "coredns"), "-conf", file("Corefile")]);
  await kubectl(["apply", "-f", "-"], JSON.stringify({ apiVersion: "v1", kind: "List", items }));
  const question = ["nslookup", "kubernetes.default.svc.cluster.local", dnsAddress];
  await waitUntil(place, "DNS answered", () =>
    runCommand([...place.prefix, "busybox", ...question]).then(
      () => true,
      () => false,
    ),
  );
}

const ports = [
  { name: "dns", port: 53, protocol: "UDP" },
  { name: "dns-tcp", port: 53, protocol: "TCP" },
];
const items = [
  {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "kube-dns", namespace: "kube-system" },
    spec: { clusterIP: serviceAddress, ports },
  },
  {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: "kube-dns",
      namespace: "kube-system",
      labels: { "kubernetes.io/service-name": "kube-dns" },
    },
    addressType: "IPv4",
    ports,
    endpoints: [{ addresses: [dnsAddress] }],
  },
];
