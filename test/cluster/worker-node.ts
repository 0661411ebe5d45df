import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ControlPlane } from "./control-plane.ts";
import { writeBusyboxImages } from "./images.ts";
import { inside, type Node } from "./namespaces.ts";
import { type Place, startProgram, waitUntil } from "./program.ts";
import { runCommand } from "./run-command.ts";

export interface WorkerOptions {
  readonly node: Node;
  /** Its address, and the range of its Pods' addresses. */
  readonly address: string;
  readonly podRange: string;
  readonly bin: string;
  readonly controlPlane: ControlPlane;
}

/**
 * Where containerd and the kubelet look for what is said of images. They are below /var/lib, of which each node has its own.
 * As on a node of a vendor, the kubelet has a credential provider of somebody else.
 */
export const imageFolders = {
  certs: "/var/lib/node-images/certs.d",
  providerBin: "/var/lib/node-images/bin",
  providerConfig: "/var/lib/node-images/config.d",
} as const;

/** Starts containerd, kubelet and kube-proxy, and waits until the node is Ready. */
export async function startWorker(options: WorkerOptions): Promise<void> {
  const { node, bin, controlPlane } = options;
  const place: Place = { folder: node.folder, prefix: await inside(node) };
  const file = (name: string): string => join(node.folder, name);
  await prepareMounts(place);
  await writeConfiguration(options);
  await startProgram(place, "containerd", ["containerd", "-c", file("containerd.toml")]);
  await waitUntil(place, "containerd answered", () =>
    runCommand([...place.prefix, ...ctr(node, ["version"])]).then(
      () => true,
      () => false,
    ),
  );
  for (const image of writeBusyboxImages(node.folder)) await loadImage(node, image);
  const common = [`--kubeconfig=${controlPlane.kubeconfig}`, `--hostname-override=${node.name}`];
  await startProgram(place, "kubelet", [
    join(bin, "kubelet"),
    ...common,
    `--config=${file("kubelet.yaml")}`,
    `--node-ip=${options.address}`,
    `--image-credential-provider-bin-dir=${imageFolders.providerBin}`,
    `--image-credential-provider-config=${imageFolders.providerConfig}`,
  ]);
  // nf_conntrack_max can't be written in a namespace; kube-proxy ends where it can't write it.
  await startProgram(place, "kube-proxy", [
    join(bin, "kube-proxy"),
    ...common,
    "--proxy-mode=iptables",
    "--conntrack-max-per-core=0",
    "--cluster-cidr=10.244.0.0/16",
  ]);
  const query = '{.status.conditions[?(@.type=="Ready")].status}{.spec.taints}';
  await waitUntil(place, `${node.name} was Ready`, () =>
    controlPlane.kubectl(["get", "node", node.name, "-o", `jsonpath=${query}`]).then(
      (answer) => answer === "True",
      () => false,
    ),
  );
}

/** Imports a docker or OCI archive into a node's containerd. */
export async function loadImage(node: Node, image: string): Promise<void> {
  await runCommand([
    ...(await inside(node)),
    ...ctr(node, ["-n", "k8s.io", "images", "import", image]),
  ]);
}

const ctr = (node: Node, args: readonly string[]): readonly string[] => [
  "ctr",
  "--address",
  join(node.folder, "containerd.sock"),
  ...args,
];

/**
 * What containerd, CNI and kubelet keep in folders of the system goes with the namespace, and two
 * nodes do not meet there. Manifests name /var/lib/kubelet, so it is bound there, as a peer group of
 * its own: as a peer of / every volume would be mounted twice.
 */
async function prepareMounts(place: Place): Promise<void> {
  const script = `
for folder in /run /var/log; do mount -t tmpfs tmpfs $folder; done
mkdir -p lib/upper lib/work kubelet
mount -t overlay overlay -o "lowerdir=/var/lib,upperdir=$PWD/lib/upper,workdir=$PWD/lib/work" /var/lib
mkdir -p /var/lib/kubelet
mount --bind kubelet /var/lib/kubelet
mount --make-private /var/lib/kubelet
mount --make-shared /var/lib/kubelet
mkdir -p ${imageFolders.certs} ${imageFolders.providerBin} ${imageFolders.providerConfig}
printf '#!/bin/sh\nexit 1\n' > ${imageFolders.providerBin}/vendor-provider
chmod +x ${imageFolders.providerBin}/vendor-provider
cat > ${imageFolders.providerConfig}/vendor.yaml <<END
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: vendor-provider # of nobody's registry
  matchImages: [vendor.invalid]
  defaultCacheDuration: 1h
  apiVersion: credentialprovider.kubelet.k8s.io/v1
END
echo 1 > /proc/sys/net/ipv4/ip_forward`;
  await runCommand([...place.prefix, "bash", "-euc", script]);
}

async function writeConfiguration({ node, address, podRange }: WorkerOptions): Promise<void> {
  const file = (name: string): string => join(node.folder, name);
  await mkdir(file("cni"), { recursive: true });
  // Where CAP_SYS_RESOURCE is missing, a negative oom_score_adj is refused.
  await writeFile(
    file("containerd.toml"),
    `version = 2
root = "${file("containerd/root")}"
state = "${file("containerd/state")}"
[grpc]
address = "${file("containerd.sock")}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "${imageFolders.certs}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "${file("cni")}"
`,
  );
  const ranges = [[{ subnet: podRange }]];
  const ipam = {
    type: "host-local",
    dataDir: file("ipam"),
    ranges,
    routes: [{ dst: "0.0.0.0/0" }],
  };
  const bridge = { type: "bridge", bridge: "cni0", isGateway: true, hairpinMode: true, ipam };
  const network = { cniVersion: "1.0.0", name: "pods", plugins: [bridge] };
  await writeFile(file("cni/10-pods.conflist"), JSON.stringify(network));
  const kubelet = {
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    failCgroupV1: false, // a machine may still have the old cgroup tree, or both
    failSwapOn: false,
    cgroupDriver: "cgroupfs",
    cgroupsPerQOS: false,
    enforceNodeAllocatable: [],
    containerRuntimeEndpoint: `unix://${file("containerd.sock")}`,
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: "AlwaysAllow" },
    clusterDomain: "cluster.local",
    clusterDNS: ["10.96.0.10"],
    resolvConf: "",
    syncFrequency: "10s", // a republish comes six times as often as by default
    evictionHard: { "memory.available": "50Mi" },
    address,
    readOnlyPort: 0,
  };
  await writeFile(file("kubelet.yaml"), JSON.stringify(kubelet));
}
