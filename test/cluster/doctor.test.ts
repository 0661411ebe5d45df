import { join } from "node:path";
import { expect } from "chai";
import { startController } from "../../src/controller/controller.ts";
import { systemClock } from "../../src/controller/work-queue.ts";
import type { Section, Verdict } from "../../src/doctor/report.ts";
import { loadKubeconfigAccess } from "../../src/kube/api-access.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { createLog } from "../../src/log.ts";
import { installedNames } from "../../src/roles/installed-names.ts";
import { createProbe } from "../../src/upstream/probe.ts";
import { createUpstreams } from "../../src/upstream/upstream.ts";
import { noIdentities } from "../controller/sample-connector.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { runProgram, systemPath } from "../support/program.ts";
import { type Cluster, startCluster } from "./cluster.ts";

const root = join(import.meta.dirname, "../..");
const system = "connectors-system";

/** The verdict about each subject, and the line that it stands in. */
interface Report {
  readonly status: number | undefined;
  readonly verdicts: Readonly<Record<string, Verdict>>;
  readonly text: string;
}

describe("the doctor, on a real API server", function () {
  this.timeout(120_000);
  const resources = cleanup();
  let cluster: Cluster;
  let registry: FakeRegistry;
  let lines: string[];

  before(async function () {
    this.timeout(30 * 60_000); // building the API server cold
    cluster = resources.add(await startCluster({ nodes: 0 }));
    if (!cluster.own) this.skip(); // it installs, and breaks what it has installed
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
  });
  after(resources.stop);

  const apply = (...items: readonly object[]): Promise<string> =>
    cluster.kubectl(
      ["apply", "-f", "-"],
      JSON.stringify({ apiVersion: "v1", kind: "List", items }),
    );
  const patchStatus = (kind: string, name: string, status: object): Promise<string> => {
    const patch = ["--subresource=status", "--type=merge", "-p", JSON.stringify({ status })];
    return cluster.kubectl(["patch", kind, name, "-n", system, ...patch]);
  };
  const doctor = async (...args: readonly string[]): Promise<Report> => {
    const main = join(root, "src/main.ts");
    const env = { PATH: systemPath, KUBECONFIG: cluster.kubeconfig };
    const command = [main, "doctor", "--output=json", ...args];
    const { status, stdout, stderr } = await runProgram(process.execPath, command, { env });
    expect(stderr).to.equal("");
    const { sections } = JSON.parse(stdout) as { sections: readonly Section[] };
    const findings = sections.flatMap((section) => section.findings);
    return {
      status,
      text: stdout,
      verdicts: Object.fromEntries(findings.map(({ subject, verdict }) => [subject, verdict])),
    };
  };
  const ofConnector = (...args: readonly string[]): Promise<Report> =>
    doctor("team-a/harbor", "--service-account=team-a/builder", ...args);

  it("says of an empty cluster that nothing is installed", async () => {
    const { status, verdicts } = await doctor();
    expect(status).to.equal(1);
    expect(verdicts).to.include({
      "API server": "ok",
      "Connector definition": "failed",
      CSIDriver: "failed",
      DaemonSet: "failed",
      controller: "failed",
      "proxy's Service": "failed",
    });
  });

  it("takes what the manifests install for right, but for what does not run", async () => {
    await cluster.kubectl(["apply", "--server-side", "-k", join(root, "daemonset")]);
    await cluster.kubectl(["wait", "--for=condition=Established", "crd", "--all"]);
    const { status, verdicts } = await doctor();
    expect(status).to.equal(1);
    expect(verdicts).to.include({
      "Connector definition": "ok",
      CSIDriver: "ok",
      DaemonSet: "warning",
      controller: "failed",
      "proxy's certificates": "failed",
      "proxy's keys": "failed",
    });
  });

  it("finds nothing wrong once all of it runs", async () => {
    await run();
    await apply(
      { apiVersion: "v1", kind: "Namespace", metadata: { name: "team-a" } },
      {
        apiVersion: "v1",
        kind: "Secret",
        type: "kubernetes.io/basic-auth",
        metadata: { name: "login", namespace: "team-a" },
        stringData: { username: "alice", password: "secret-of-alice" },
      },
      {
        apiVersion: "connectors.alauda.io/v1alpha1",
        kind: "Connector",
        metadata: { name: "harbor", namespace: "team-a" },
        spec: {
          connectorClassName: "oci",
          address: registry.url,
          auth: { name: "tokenAuth", secretRef: { name: "login" } },
        },
      },
      {
        apiVersion: "v1",
        kind: "ServiceAccount",
        metadata: { name: "builder", namespace: "team-a" },
      },
    );
    await cluster.kubectl([
      "wait",
      "--for=condition=Ready",
      "connector/harbor",
      "-n",
      "team-a",
      "--timeout=30s",
    ]);
    const { status, verdicts, text } = await ofConnector();
    const wrong = Object.entries(verdicts).filter(([, verdict]) => verdict !== "ok");
    expect(Object.fromEntries(wrong)).to.deep.equal({
      DNS: "not checked",
      "right to pull": "failed",
      "right to push": "failed",
    });
    expect(status).to.equal(1);
    expect(text).not.to.contain("secret-of-alice");
  });

  it("names the command that gives a right, and it does", async () => {
    const { text } = await ofConnector();
    const [, command = ""] = /(kubectl create rolebinding [^"]*)"/.exec(text) ?? [];
    const [, ...args] = command.split(" ");
    await cluster.kubectl(args);
    const { status, verdicts } = await ofConnector();
    expect(verdicts).to.include({ "right to pull": "ok", "right to push": "ok" });
    expect(status).to.equal(0);
  });

  it("says what a user without rights can't see, and goes on", async () => {
    const context = "nobody";
    const kubectl = (...args: readonly string[]): Promise<string> =>
      cluster.kubectl(["config", ...args]);
    const token = await cluster.kubectl(["create", "token", "builder", "-n", "team-a"]);
    await kubectl("set-credentials", context, `--token=${token.trim()}`);
    const [name = ""] = (await kubectl("get-clusters")).trim().split("\n").slice(1);
    await kubectl("set-context", context, `--cluster=${name}`, `--user=${context}`);
    const { verdicts, text } = await ofConnector(`--context=${context}`);
    expect(verdicts).to.include({
      "API server": "ok",
      "Connector definition": "ok",
      CSIDriver: "not checked",
      Connector: "ok",
      conditions: "ok",
      registry: "ok", // the right to use it is that to read it
      Secret: "not checked",
      login: "not checked",
      "right to pull": "not checked",
    });
    expect(text).to.contain("not allowed to read it: ");
    expect(text).not.to.contain(token.trim());
  });

  it("sees what is broken", async () => {
    await cluster.kubectl(["delete", "secret", "login", "-n", "team-a"]);
    const driver = ["patch", "csidriver", "connectors-csi", "--type=merge", "-p"];
    await cluster.kubectl([...driver, JSON.stringify({ spec: { requiresRepublish: false } })]);
    await apply({
      apiVersion: "storage.k8s.io/v1",
      kind: "CSINode",
      metadata: { name: "node1" },
      spec: { drivers: [] },
    });
    await patchStatus("deployment", "connectors-controller", { availableReplicas: 0 });
    const { status, verdicts } = await ofConnector();
    expect(status).to.equal(1);
    expect(verdicts).to.include({
      CSIDriver: "failed",
      registration: "failed",
      controller: "failed",
      Secret: "failed",
      login: "not checked",
    });
  });

  /** A controller, and what nodes with kubelets would say. */
  async function run(): Promise<void> {
    lines = [];
    const upstreams = createUpstreams(15_000);
    resources.defer(() => upstreams.destroy());
    const controller = resources.add(
      startController({
        client: createApiClient({
          access: await loadKubeconfigAccess({ file: cluster.kubeconfig }),
        }),
        probe: createProbe(upstreams),
        identityLogins: noIdentities,
        names: { ...installedNames, installNamespace: system, clusterDomain: "cluster.local" },
        instance: "test",
        clock: systemClock,
        random: Math.random,
        log: createLog((line) => lines.push(line), Date.now),
      }),
    );
    await eventually(
      () => controller.ready(),
      () => lines.join(""),
      30_000,
    );
    await cluster.kubectl([
      "wait",
      "--for=create",
      "configmap/connectors-proxy-ca",
      "-n",
      system,
      "--timeout=30s",
    ]);
    await apply(
      { apiVersion: "v1", kind: "Node", metadata: { name: "node1" } },
      {
        apiVersion: "storage.k8s.io/v1",
        kind: "CSINode",
        metadata: { name: "node1" },
        spec: { drivers: [{ name: "connectors-csi", nodeID: "node1" }] },
      },
      {
        apiVersion: "discovery.k8s.io/v1",
        kind: "EndpointSlice",
        addressType: "IPv4",
        metadata: {
          name: "connectors-proxy-1",
          namespace: system,
          labels: { "kubernetes.io/service-name": "connectors-proxy" },
        },
        endpoints: [{ addresses: ["10.244.0.2"], conditions: { ready: true } }],
        ports: [{ name: "http", port: 8080 }],
      },
    );
    const numbers = { currentNumberScheduled: 1, desiredNumberScheduled: 1, numberMisscheduled: 0 };
    await patchStatus("daemonset", "connectors-node", {
      ...numbers,
      numberReady: 1,
      updatedNumberScheduled: 1,
    });
    await patchStatus("deployment", "connectors-controller", {
      replicas: 2,
      readyReplicas: 2,
      availableReplicas: 2,
    });
  }
});
