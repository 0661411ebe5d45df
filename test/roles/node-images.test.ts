import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { type FakeApiServer, startFakeApiServer } from "../kube/fake-api-server.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { plainRequest } from "../support/plain-request.ts";
import { type RunningProgram, startProgram } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
const namespace = "connectors-system";
const plugin = "oci-connector-images";

describe("the node-images role, as a process, with a folder as the root of its node", function () {
  this.timeout(60_000);
  const resources = cleanup();
  let api: FakeApiServer;
  let root: string;

  beforeEach(async () => {
    api = resources.add(await startFakeApiServer());
    root = resources.add(makeTempFolder("node")).path;
    for (const folder of ["certs.d", "bin", "config.d"]) await mkdir(join(root, folder));
    putNode("v1.35.4");
    putService("10.96.0.7");
    putAuthority("first authority\n");
    const kubeconfig = {
      apiVersion: "v1",
      kind: "Config",
      clusters: [
        {
          name: "fake",
          cluster: { server: api.access.server.origin, "insecure-skip-tls-verify": true },
        },
      ],
      users: [{ name: "node", user: { token: "x" } }],
      contexts: [{ name: "fake", context: { cluster: "fake", user: "node" } }],
      "current-context": "fake",
    };
    await writeFile(join(root, "kubeconfig"), JSON.stringify(kubeconfig));
  });
  afterEach(resources.stop);

  const putNode = (kubeletVersion: string): void =>
    api.put("nodes", { metadata: { name: "node-1" }, status: { nodeInfo: { kubeletVersion } } });
  const putService = (...clusterIPs: readonly string[]): void =>
    api.put("services", {
      metadata: { namespace, name: "connectors-proxy" },
      spec: { clusterIPs },
    });
  const putAuthority = (text: string): void =>
    api.put("configmaps", {
      metadata: { namespace, name: "connectors-proxy-ca" },
      data: { "ca.crt": text },
    });
  const putConnector = (where: string, address: string): void =>
    api.put("connectors", {
      apiVersion: "connectors.alauda.io/v1alpha1",
      kind: "Connector",
      metadata: { namespace: where, name: "registry" },
      spec: { connectorClassName: "oci", address },
    });

  const start = async (settings: Readonly<Record<string, string>> = {}): Promise<RunningProgram> =>
    resources.add(
      await startProgram(process.execPath, [main, "node-images"], {
        env: {
          HOME: root,
          KUBECONFIG: join(root, "kubeconfig"),
          POD_NAMESPACE: namespace,
          NODE_NAME: "node-1",
          AUDIENCE: "connectors-proxy",
          CLUSTER_DOMAIN: "cluster.local",
          NODE_IMAGE_HOSTS: "harbor.example.com,*.corp.example.com",
          NODE_CERTS: "/etc/containerd/certs.d",
          NODE_PROVIDER_BIN: "/etc/vendor",
          NODE_PROVIDER_FOLDER: "/etc/vendor/config.d",
          NODE_MOUNTS: root,
          ...settings,
        },
      }),
    );
  const readiness = async (): Promise<string> => {
    const answer = await plainRequest("http://127.0.0.1:9811/readyz").catch(() => undefined);
    return answer?.body.toString().trim() ?? "";
  };
  const becomes = (wanted: string | RegExp): Promise<unknown> => {
    let last = "";
    return eventually(
      async () => {
        last = await readiness();
        return typeof wanted === "string" ? last === wanted : wanted.test(last);
      },
      () => `it is not ${wanted}, but ${last}`,
      30_000,
    );
  };
  const has = (path: string, text: string): Promise<unknown> =>
    eventually(
      async () => (await readFile(join(root, path), "utf8").catch(() => "")).includes(text),
      () => `${path} has no ${text}`,
      30_000,
    );
  const hosts = async (): Promise<readonly string[]> =>
    (await readdir(join(root, "certs.d"))).toSorted();

  it("writes the node's files, follows the cluster, and leaves all as it was", async () => {
    const role = await start();
    await becomes("ok");
    await has("certs.d/harbor.example.com/hosts.toml", "https://10.96.0.7");
    expect(await readdir(join(root, "bin"))).to.deep.equal([plugin]);
    expect(await readdir(join(root, "config.d"))).to.deep.equal(["oci-connector.yaml"]);
    // A new authority is there long before anybody uses it.
    putAuthority("first authority\nsecond authority\n");
    await has("certs.d/harbor.example.com/oci-connector-ca.pem", "second authority");
    putService("fd00::7", "10.96.0.7");
    await has("certs.d/harbor.example.com/hosts.toml", 'server = "https://[fd00::7]"');
    role.signal("SIGTERM");
    await role.ended;
    expect(role.status()).to.equal(0);
    expect(await hosts()).to.deep.equal(["harbor.example.com"]);
    await role.stop();

    const removal = await start({ NODE_IMAGES: "remove" });
    await becomes(/stay, without effect: take the kubelet's flags back, and set NODE_IMAGES=purge/);
    expect(await hosts()).to.deep.equal([]);
    expect(await readdir(join(root, "bin"))).to.deep.equal([plugin]);
    await removal.stop();
    await start({ NODE_IMAGES: "purge" });
    await becomes("ok");
    expect(await readdir(root, { recursive: true })).to.have.members([
      "kubeconfig",
      "certs.d",
      "bin",
      "config.d",
    ]);
  });

  it("takes registries of patterns from shared connectors, and none from a tenant's", async () => {
    putConnector("kube-public", "https://shared.corp.example.com/base");
    putConnector("team-a", "https://tenant.corp.example.com");
    await start();
    await becomes("ok");
    expect(await hosts()).to.deep.equal(["harbor.example.com", "shared.corp.example.com"]);
    putConnector("kube-public", "https://other.corp.example.com:8443");
    await has("certs.d/harbor.example.com/hosts.toml", "10.96.0.7");
    putConnector("kube-public", "https://moved.corp.example.com");
    await has("certs.d/moved.corp.example.com/hosts.toml", "10.96.0.7");
    await eventually(
      async () => (await hosts()).join() === "harbor.example.com,moved.corp.example.com",
      () => "a registry that is not wanted any more stays",
    );
  });

  it("tells the kubelet alone where it prepares, so that pulls go on until kubelets know the plug-in", async () => {
    await start({ NODE_IMAGES: "prepare" });
    await becomes("ok");
    expect(await hosts()).to.deep.equal([]);
    await has("config.d/oci-connector.yaml", "harbor.example.com");
  });

  it("reports what others have written, and counts it", async () => {
    await mkdir(join(root, "certs.d/harbor.example.com"));
    await writeFile(join(root, "certs.d/harbor.example.com/hosts.toml"), "# theirs\n");
    const role = await start();
    await becomes("ok");
    const line = JSON.parse((await role.waitFor(/^\{.*"host":"harbor.*$/m))[0]);
    expect(line).to.include({ level: "warning", host: "harbor.example.com" });
    const path = "/etc/containerd/certs.d/harbor.example.com/hosts.toml";
    expect(line.reason).to.contain(`${path} was not written by oci-connector: remove it`);
    const metrics = await plainRequest("http://127.0.0.1:9811/metrics");
    expect(metrics.body.toString()).to.contain("oci_connector_node_images_skipped_registries 1\n");
    expect(await readFile(join(root, "certs.d/harbor.example.com/hosts.toml"), "utf8")).to.equal(
      "# theirs\n",
    );
  });

  it("writes nothing for a kubelet that would not start with it", async () => {
    putNode("v1.33.9");
    const first = await start();
    await becomes(/^the kubelet is v1.33.9, and gives tokens of Pods to a plug-in since v1.34/);
    await first.stop();
    putNode("v1.34.2");
    const second = await start();
    await becomes(/reads a folder of credential providers since v1.35: set NODE_PROVIDER_FILE/);
    await second.stop();
    expect(await hosts()).to.deep.equal([]);
    expect(await readdir(join(root, "bin"))).to.deep.equal([]);
    expect(await readdir(join(root, "config.d"))).to.deep.equal([]);
    await start({ NODE_PROVIDER_FILE: "providers.yaml" });
    await becomes("ok");
    expect(await readdir(join(root, "config.d"))).to.deep.equal(["providers.yaml"]);
  });

  it("removes nothing while the API server is away, and goes on when it is killed", async () => {
    const first = await start();
    await becomes("ok");
    first.signal("SIGKILL");
    await first.ended;
    await first.stop();
    await writeFile(join(root, "certs.d/harbor.example.com/hosts.toml"), "");
    await api.goAway();
    await start();
    await becomes(/./);
    expect(await readdir(join(root, "config.d"))).to.deep.equal(["oci-connector.yaml"]);
    expect(await hosts()).to.deep.equal(["harbor.example.com"]);
    await api.comeBack();
  });
});
