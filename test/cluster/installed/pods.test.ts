import { expect } from "chai";
import { readConditions } from "../../../src/controller/conditions.ts";
import { type InstalledCluster, installedCluster, until } from "./installed-cluster.ts";
import { type NodeRegistry, startNodeRegistry } from "./node-registry.ts";
import { connector, login, namespace, pod, right } from "./objects.ts";

const team = "pods";
const bounded = "pods-bounded";
const users = { alice: "password-of-alice" };

/** Pods and namespaces of kinds that docs/clusters.md speaks of. */
describe("Pods of other kinds", function () {
  this.timeout(120_000);
  let cluster: InstalledCluster;
  let registry: NodeRegistry;

  before(async function () {
    this.timeout(45 * 60_000); // building a cluster cold
    cluster = await installedCluster();
    registry = await startNodeRegistry(cluster, "pods", { auth: "bearer", users });
    await cluster.apply(namespace(team), namespace(bounded));
    for (const place of [team, bounded]) {
      await cluster.apply(
        login({ namespace: place, name: "alice" }, "alice", users.alice),
        ...right(
          { namespace: place, name: "use" },
          { connectors: ["harbor", "second"], of: place },
        ),
      );
    }
    await cluster.apply(harborIn(team));
    await cluster.wait("condition=Ready", "connector/harbor", team);
  });
  after(async () => {
    await cluster?.kubectl(["delete", "namespace", team, bounded, "--timeout=90s"]);
  });

  const harborIn = (of: string, name = "harbor"): object =>
    connector({ namespace: of, name }, { address: registry.url, secret: "alice" });
  const pull = (of: string, name: string, token: string): Promise<string> => {
    const url = `http://c-harbor.${of}.svc.cluster.local/v2/app/base/manifests/1`;
    const command = `wget -q -O- --header "Authorization: Bearer $(cat ${token})" ${url}`;
    return cluster.exec(of, name, ["sh", "-c", command]);
  };

  it("pull in the network of their node, with the DNS of the cluster", async () => {
    const options = { hostNetwork: true, dnsPolicy: "ClusterFirstWithHostNet" };
    const at = { namespace: team, name: "host-network" };
    await cluster.apply(pod(at, { volume: { connectors: "harbor" }, pod: options }));
    await cluster.wait("condition=Ready", "pod/host-network", team);
    expect(await pull(team, at.name, "/run/connectors/context.token")).to.contain("schemaVersion");
  });

  it("start with a subPath, though it is never renewed, and end", async () => {
    const at = { namespace: team, name: "sub-path" };
    const made = pod(at, { volume: { connectors: "harbor" } }) as {
      spec: { containers: { volumeMounts: object[] }[] };
    };
    const mount = { name: "connectors", mountPath: "/token", subPath: "context.token" };
    made.spec.containers[0]?.volumeMounts.push(mount);
    await cluster.apply(made);
    await cluster.wait("condition=Ready", "pod/sub-path", team);
    expect(await pull(team, at.name, "/token")).to.contain("schemaVersion");
    await cluster.kubectl(["delete", "pod", at.name, "-n", team, "--timeout=60s"]);
  });

  it("start within a quota and a range of limits, and a Connector beyond the quota says so", async () => {
    const hard = { "count/connectors.connectors.alauda.io": "2", "count/services": "1", pods: "1" };
    await cluster.apply(
      {
        apiVersion: "v1",
        kind: "ResourceQuota",
        metadata: { namespace: bounded, name: "all" },
        spec: { hard: { ...hard, "limits.cpu": "1", "limits.memory": "1Gi" } },
      },
      {
        apiVersion: "v1",
        kind: "LimitRange",
        metadata: { namespace: bounded, name: "all" },
        spec: {
          limits: [{ type: "Container", default: { cpu: "100m", memory: "64Mi" } }],
        },
      },
    );
    await cluster.wait("jsonpath={.status.hard.pods}=1", "resourcequota/all", bounded);
    await cluster.apply(harborIn(bounded));
    await cluster.wait("condition=Ready", "connector/harbor", bounded);
    const at = { namespace: bounded, name: "user" };
    await cluster.apply(pod(at, { volume: { connectors: "harbor" } }));
    await cluster.wait("condition=Ready", "pod/user", bounded);
    expect(await pull(bounded, at.name, "/run/connectors/context.token")).to.contain("schema");

    await cluster.apply(harborIn(bounded, "second"));
    const message = await until(async () => {
      const conditions = readConditions(await cluster.get("connector", "second", bounded));
      const service = conditions.find(({ type }) => type === "ProxyServiceReady");
      return service?.status !== "True" && service?.message;
    }, "nothing says that the Service is beyond the quota");
    expect(message).to.contain("exceeded quota");
    const third = await cluster.apply(harborIn(bounded, "third")).catch((error: unknown) => error);
    expect(String(third)).to.contain("exceeded quota");
  });
});
