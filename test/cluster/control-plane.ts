import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { type Kubectl, kubectlWith } from "./kubectl.ts";
import { type Place, startProgram, waitUntil } from "./program.ts";
import { runCommand } from "./run-command.ts";

export interface ControlPlane {
  /** The kubeconfig of a cluster administrator. */
  readonly kubeconfig: string;
  readonly kubectl: Kubectl;
}

export interface ControlPlaneOptions {
  readonly place: Place;
  /** The folder of the programs. */
  readonly bin: string;
  /** Where the API server listens. */
  readonly address: string;
  /** Without nodes nothing runs that would make ServiceAccounts, so none are asked of a Pod. */
  readonly hasNodes: boolean;
}

/** Starts etcd and an API server with RBAC, and waits until it is ready. */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  const { place, bin, address, hasNodes } = options;
  const file = (name: string): string => join(place.folder, name);
  const token = randomBytes(16).toString("hex");
  await writeFile(file("tokens.csv"), `${token},admin,admin,"system:masters"\n`, { mode: 0o600 });
  await runCommand(["openssl", "genrsa", "-out", file("sa.key"), "2048"]);
  // In a namespace of its own every port is free; elsewhere others may be listening.
  const [port, clients, peers] = hasNodes ? [16443, 12379, 12380] : await freePorts(address);
  const etcd = `http://127.0.0.1:${clients}`;
  const etcdPeers = `http://127.0.0.1:${peers}`;
  await startProgram(place, "etcd", [
    "etcd",
    "--data-dir",
    file("etcd"),
    "--unsafe-no-fsync",
    "--listen-client-urls",
    etcd,
    "--advertise-client-urls",
    etcd,
    "--listen-peer-urls",
    etcdPeers,
    "--initial-advertise-peer-urls",
    etcdPeers,
    "--initial-cluster",
    `default=${etcdPeers}`,
  ]);
  await writeFile(file("audit-policy.json"), JSON.stringify(auditPolicy));
  const issuer = "https://kubernetes.default.svc.cluster.local";
  await startProgram(place, "apiserver", [
    join(bin, "kube-apiserver"),
    `--etcd-servers=${etcd}`,
    `--bind-address=${address}`,
    `--advertise-address=${address}`,
    `--secure-port=${port}`,
    `--cert-dir=${file("certs")}`,
    "--service-cluster-ip-range=10.96.0.0/16",
    "--authorization-mode=Node,RBAC",
    `--token-auth-file=${file("tokens.csv")}`,
    `--service-account-issuer=${issuer}`,
    `--api-audiences=${issuer}`,
    `--service-account-signing-key-file=${file("sa.key")}`,
    `--service-account-key-file=${file("sa.key")}`,
    "--kubelet-preferred-address-types=InternalIP",
    "--allow-privileged=true",
    `--audit-policy-file=${file("audit-policy.json")}`,
    `--audit-log-path=${file(auditLog)}`,
    ...(hasNodes ? [] : ["--disable-admission-plugins=ServiceAccount"]),
  ]);
  const server = `https://${address}:${port}`;
  const kubeconfig = file("admin.kubeconfig");
  await waitUntil(place, "the API server had made its certificate", async () =>
    existsSync(file("certs/apiserver.crt")),
  );
  const authority = await readFile(file("certs/apiserver.crt"));
  await writeFile(kubeconfig, kubeconfigText(server, authority, token), { mode: 0o600 });
  const kubectl = kubectlWith(kubeconfig, { prefix: place.prefix, bin });
  await waitUntil(place, "the API server was ready", () =>
    kubectl(["get", "--raw", "/readyz"]).then(
      () => true,
      () => false,
    ),
  );
  return { kubeconfig, kubectl };
}

/** Lines of JSON in the folder of the first node: each request of a ServiceAccount of connectors-system, and no bodies. */
export const auditLog = "audit.log";
const auditPolicy = {
  apiVersion: "audit.k8s.io/v1",
  kind: "Policy",
  omitStages: ["RequestReceived"],
  rules: [
    {
      level: "Metadata",
      userGroups: ["system:serviceaccounts:connectors-system"],
    },
    { level: "None" },
  ],
};

/** JSON is YAML, too. */
function kubeconfigText(server: string, authority: Buffer, token: string): string {
  const cluster = { server, "certificate-authority-data": authority.toString("base64") };
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "test", cluster }],
    users: [{ name: "admin", user: { token } }],
    contexts: [{ name: "test", context: { cluster: "test", user: "admin" } }],
    "current-context": "test",
  });
}

/** Ports that nobody listens on now. */
async function freePorts(address: string): Promise<readonly number[]> {
  const servers = await Promise.all(
    [1, 2, 3].map(async () => {
      const server = createServer().listen(0, address);
      await once(server, "listening");
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => once(server.close(), "close")));
  return ports;
}

/** Starts what makes Pods of Deployments, tokens' ServiceAccounts and so on, and the scheduler. */
export async function startControllers(
  place: Place,
  bin: string,
  { kubeconfig }: ControlPlane,
): Promise<void> {
  const common = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
    .map((flag) => `--${flag}=${kubeconfig}`)
    .concat("--leader-elect=false");
  await startProgram(place, "controller-manager", [
    join(bin, "kube-controller-manager"),
    ...common,
    `--service-account-private-key-file=${join(place.folder, "sa.key")}`,
    `--root-ca-file=${join(place.folder, "certs/apiserver.crt")}`,
    `--cert-dir=${join(place.folder, "controller-manager")}`,
  ]);
  await startProgram(place, "scheduler", [join(bin, "kube-scheduler"), ...common]);
}
