import { join } from "node:path";
import { expect } from "chai";
import { buildClientPrograms } from "../../clients/client-programs.ts";
import { forwardPod } from "./forward-pods.ts";
import { type InstalledCluster, installedCluster } from "./installed-cluster.ts";
import { type NodeRegistry, startNodeRegistry } from "./node-registry.ts";
import { namespace, pod, restricted, right } from "./objects.ts";
import { applyExample, expectSuccess } from "./run-example.ts";
import { loadToolImage } from "./tool-images.ts";

const team = "forward";
const others = "forward-restricted";
const users = { robot: "password-of-robot" };
const built = ["crane", "oras", "regctl", "helm", "buildkitd", "buildctl", "containerd", "ctr"];
const image = "localhost/forward:1";
/** Two connectors in one volume, one to build on and one to push to. */
const volume = {
  connectors: `${team}/base,${team}/target`,
  "configuration.params": '{"env": {"mountPath": "/run/connectors"}}',
};

describe("the forward proxy in Pods that can't resolve their registries' names", function () {
  this.timeout(180_000);
  let cluster: InstalledCluster;
  let base: NodeRegistry;
  let target: NodeRegistry;

  before(async function () {
    this.timeout(60 * 60_000); // building a cluster and the tools cold
    cluster = await installedCluster();
    const start = (name: string): Promise<NodeRegistry> =>
      startNodeRegistry(cluster, `forward-${name}`, {
        auth: "bearer",
        users,
        tls: true,
        hostname: `${name}.example.com`,
      });
    base = await start("base");
    target = await start("target");
    await cluster.apply(namespace(team), namespace(others, restricted), authority());
    await applyExample(cluster, "forward-proxy/connectors.yaml", {
      "team-a": team,
      "change-me": users.robot,
      "base.example.com": base.host,
      "target.example.com": target.host,
    });
    const trust = JSON.stringify({ spec: { caCertSecretRef: { name: "registry-ca" } } });
    for (const name of ["base", "target"]) {
      await cluster.kubectl(["patch", "connector", name, "-n", team, "--type=merge", "-p", trust]);
      await cluster.wait("condition=Ready", `connector/${name}`, team);
    }
    for (const user of [team, others]) {
      const given = { connectors: ["base", "target"], of: user };
      await cluster.apply(...right({ namespace: team, name: `use-by-${user}` }, given));
    }
    const bin = await buildClientPrograms(built);
    await loadToolImage(cluster, {
      name: "forward",
      programs: [
        "skopeo",
        "buildah",
        "podman",
        "conmon",
        "runc",
        ...built.map((name) => join(bin, name)),
      ],
    });
    await cluster.apply(pod({ namespace: others, name: "shell" }, { image, volume }));
    await cluster.wait("condition=Ready", "pod/shell", others);
  });
  after(async () => {
    for (const name of [team, others]) {
      await cluster?.kubectl(["delete", "namespace", name, "--wait=false", "--ignore-not-found"]);
    }
  });

  const authority = (): object => ({
    apiVersion: "v1",
    kind: "Secret",
    metadata: { namespace: team, name: "registry-ca" },
    stringData: { "base.crt": base.ca, "target.crt": target.ca },
  });
  /** Runs a command with the volume's variables. @returns all that it says, whatever its end */
  const shell = (command: string): Promise<string> =>
    cluster.exec(others, "shell", [
      "sh",
      "-c",
      `exec 2>&1; set -a; . /run/connectors/.env; set +a; ${command}; true`,
    ]);

  it("buildah builds FROM one registry and pushes to another, as in the example", async () => {
    await applyExample(cluster, "forward-proxy/job.yaml", {
      "team-a": team,
      "quay.io/buildah/stable": image,
      "base.example.com": base.host,
      "target.example.com": target.host,
    });
    await expectSuccess(cluster, team, "job", "forward-proxy");
    expect(await target.requests()).to.include("PUT /v2/app/buildah/manifests/1 201");
  });

  for (const [tool, isPrivileged] of [
    ["skopeo", false],
    ["crane", false],
    ["oras", false],
    ["regctl", false],
    ["helm", false],
    ["podman", true],
    ["buildkit", true],
    ["containerd", true],
  ] as const) {
    const where = isPrivileged ? "a privileged Pod" : "a Pod under Pod Security restricted";
    it(`${tool} does what docs/forward-proxy.md says, in ${where}`, async () => {
      const at = { namespace: isPrivileged ? team : others, name: tool };
      const names = { base: `${base.host}/app`, target: `${target.host}/${tool}` };
      await cluster.apply(await forwardPod(at, { tool, ...names, volume, image, isPrivileged }));
      await expectSuccess(cluster, at.namespace, "pod", tool);
      const tag = tool === "helm" ? "1.0.0" : "1";
      expect(await target.requests()).to.include(`PUT /v2/${tool}/app/manifests/${tag} 201`);
    });
  }

  it("ask the first registry for nothing but what they read", async () => {
    const asked = await base.requests();
    expect(asked).to.include("GET /v2/app/base/manifests/1 200");
    expect(asked.filter((line) => !/^(GET|HEAD) /.test(line))).to.deep.equal([]);
  });

  it("is what it takes: without it there is no such host, and without its authority no trust", async () => {
    const inspect = `skopeo inspect --raw docker://${base.host}/app/base:1`;
    expect(await shell("nslookup base.example.com")).to.contain("NXDOMAIN");
    expect(await shell(`env -u https_proxy -u HTTPS_PROXY ${inspect}`)).to.contain("no such host");
    expect(await shell(`env -u SSL_CERT_FILE ${inspect}`)).to.contain("unknown authority");
    expect(await shell(inspect)).to.contain('"schemaVersion":2');
  });

  it("leads nowhere else in the cluster, whatever it is called", async () => {
    const proxy = await shell("cat /run/connectors/http.proxy");
    const [, user = "", token, host] = /^http:\/\/([^:]+):([^@]+)@(.+)$/.exec(proxy.trim()) ?? [];
    const login = Buffer.from(`${decodeURIComponent(user)}:${token}`).toString("base64");
    const connect = (to: string): Promise<string> => {
      const head = `CONNECT ${to} HTTP/1.1\\r\\nHost: ${to}\\r\\nProxy-Authorization: Basic ${login}`;
      return shell(`(printf '${head}\\r\\n\\r\\n'; sleep 1) | nc -w 10 ${host} 80`);
    };
    expect(await connect(base.host)).to.match(/^HTTP\/1.1 200 /);
    const elsewhere = [
      "10.96.0.1:443", // the API server's Service
      "kubernetes.default.svc.cluster.local:443",
      "10.250.0.1:16443", // the API server, and the node
      "10.244.1.2:9809", // a Pod
      `${host}:80`, // the proxy itself
      "localhost:9809",
      "169.254.169.254:80",
      "base.example.com:16443", // a connector's host, and not its port
    ];
    const answers = await Promise.all(elsewhere.map(connect));
    for (const [index, answer] of answers.entries()) {
      expect(answer, elsewhere[index]).to.match(/^HTTP\/1.1 403 .* (address|dialled)/);
    }
    const said = await shell("skopeo inspect docker://10.96.0.1/app/base:1");
    expect(said).to.contain(
      "10.96.0.1 is an address of this machine, or of the cluster's API server",
    );
  });
});
