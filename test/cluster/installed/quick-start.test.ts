import { join } from "node:path";
import { expect } from "chai";
import { type InstalledCluster, install, installedCluster, until } from "./installed-cluster.ts";
import { startNodeRegistry } from "./node-registry.ts";
import { namespace, pod } from "./objects.ts";

const users = { alice: "password-of-alice" };

interface Event {
  readonly reason: string;
  readonly message: string;
}

/** As Alauda's documentation has them: a Secret and a Connector, and a Pod of the ServiceAccount `default`, without any Role. */
describe("the quick start of Alauda DevOps Connectors, with everything installed", function () {
  this.timeout(240_000);
  let cluster: InstalledCluster;
  let address: string;

  before(async function () {
    this.timeout(45 * 60_000); // building a cluster cold
    cluster = await installedCluster();
    ({ url: address } = await startNodeRegistry(cluster, "quick-start", { auth: "bearer", users }));
  });

  const apply = async (team: string): Promise<void> => {
    await cluster.apply(
      namespace(team),
      {
        apiVersion: "v1",
        kind: "Secret",
        type: "kubernetes.io/basic-auth",
        metadata: { namespace: team, name: "harbor" },
        stringData: { username: "alice", password: users.alice },
      },
      {
        apiVersion: "connectors.alauda.io/v1alpha1",
        kind: "Connector",
        metadata: {
          namespace: team,
          name: "harbor",
          labels: { "connectors.alauda.io/connectorclass": "harbor" },
        },
        spec: {
          connectorClassName: "harbor",
          address,
          auth: { name: "basic-auth", secretRef: { name: "harbor", namespace: team } },
        },
      },
      pod({ namespace: team, name: "demo" }, { volume: { "connector.name": "harbor" } }),
    );
    await cluster.wait("condition=Ready", "connector/harbor", team);
  };

  it("keeps the Pod waiting by default, and names the Role in its event", async () => {
    const team = "quick-start";
    await apply(team);
    const message = await until(async () => {
      const events = await cluster.list<Event>("events", team);
      return events.find(({ reason }) => reason === "FailedMount")?.message;
    }, "no FailedMount event");
    expect(message).to.contain(`allow system:serviceaccount:${team}:default to get connectors`);
    expect(message).to.contain("to a Role with rules: [{apiGroups: [connectors.alauda.io]");
  });

  it("starts the Pod, which pulls and pushes, where DEFAULT_PERMISSION is namespace", async () => {
    const team = "quick-start-open";
    await install(cluster, join(import.meta.dirname, "../install-default-permission"));
    try {
      await apply(team);
      await cluster.wait("condition=Ready", "pod/demo", team, 120);
      const base = `http://c-harbor.${team}.svc.cluster.local/v2/app/base`;
      const ask = (options: string): Promise<string> => {
        const token = "$(cat /run/connectors/context.token)";
        const command = `wget -q -S -O- --header "Authorization: Bearer ${token}" ${options} 2>&1`;
        return cluster.exec(team, "demo", ["sh", "-c", command]);
      };
      expect(await ask(`${base}/manifests/1`)).to.contain('"schemaVersion":2');
      expect(await ask(`--post-data= ${base}/blobs/uploads/`)).to.match(/HTTP\/1.1 202/);
    } finally {
      await cluster.kubectl(["delete", "namespace", team, "--wait=false"]);
      await install(cluster);
    }
  });
});
