import { expect } from "chai";
import { searchSecrets } from "../../support/secrets-search.ts";
import { type InstalledCluster, installedCluster, system, until } from "./installed-cluster.ts";
import { startNodeRegistry } from "./node-registry.ts";
import { connector, login, namespace, pod, restricted, right } from "./objects.ts";

const team = "secrecy";
const users = { alice: "correct-horse-battery" };
const wrong = "wrong-staple-battery";

interface PodWithContainers {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly containers: readonly { readonly name: string }[] };
}

describe("secrets in a cluster", function () {
  this.timeout(120_000);
  let cluster: InstalledCluster;

  before(async function () {
    this.timeout(45 * 60_000); // building a cluster cold
    cluster = await installedCluster();
    const { url: address } = await startNodeRegistry(cluster, "secrecy", { auth: "bearer", users });
    await cluster.apply(namespace(team, restricted));
    await cluster.apply(
      login({ namespace: team, name: "right" }, "alice", users.alice),
      login({ namespace: team, name: "wrong" }, "alice", wrong),
      connector({ namespace: team, name: "right" }, { address, secret: "right" }),
      connector({ namespace: team, name: "wrong" }, { address, secret: "wrong" }),
      ...right({ namespace: team, name: "use" }, { connectors: ["right", "wrong"], of: team }),
      pod({ namespace: team, name: "user" }, { volume: { connectors: "right,wrong" } }),
      pod({ namespace: team, name: "failing" }, { volume: { connectors: "none" } }),
    );
    await cluster.wait("condition=Ready", "connector/right", team);
    await cluster.wait("condition=Ready", "pod/user", team);
  });
  after(async () => {
    await cluster?.kubectl(["delete", "pods", "--all", "-n", team, "--timeout=60s"]);
  });

  it("are in no log, no Event and no object's status, whatever goes right or wrong", async () => {
    const exec = (command: string): Promise<string> =>
      cluster.exec(team, "user", ["sh", "-c", command]);
    const pull = (name: string, header: string): Promise<string> =>
      exec(
        `wget -O- --header "${header}" http://c-${name}.${team}.svc.cluster.local/v2/app/base/manifests/1 2>&1 || true`,
      );
    const token = (await exec("cat /run/connectors/context.token")).trim();
    const basic = Buffer.from(`any:${token}`).toString("base64");
    const api = (await exec("cat /var/run/secrets/kubernetes.io/serviceaccount/token")).trim();
    const answers = [
      await pull("right", `Authorization: Bearer ${token}`),
      await pull("right", `Authorization: Basic ${basic}`),
      await pull("wrong", `Authorization: Bearer ${token}`),
      await pull("right", `Authorization: Bearer ${token}x`),
      await pull("right", `Authorization: Bearer ${api}`),
      await pull("right", "Authorization: Basic nonsense"),
    ];
    expect(answers[0]).to.contain("schemaVersion");
    expect(answers[2]).not.to.contain("schemaVersion");
    await until(async () => {
      const events = await cluster.kubectl(["get", "events", "-n", team]);
      return events.includes("FailedMount") && events.includes("AuthenticationFailed");
    }, "the events are not there");

    const outputs: Record<string, string> = { answers: answers.join("\n") };
    for (const { metadata, spec } of await cluster.list<PodWithContainers>("pods", system)) {
      for (const { name } of spec.containers) {
        const args = ["logs", metadata.name, "-c", name, "-n", system];
        outputs[`log of ${metadata.name}/${name}`] = await cluster.kubectl(args);
        outputs[`earlier log of ${metadata.name}/${name}`] = await cluster
          .kubectl([...args, "--previous"])
          .catch(() => "");
      }
    }
    const lines = Object.values(outputs).slice(1).join("").split("\n");
    expect(lines.join("\n")).to.contain(`${team}/user`); // the audit log is among them
    expect(lines.filter((line) => line !== "" && !line.startsWith('{"time":'))).to.deep.equal([]);
    const all = async (kind: string): Promise<string> =>
      cluster.kubectl(["get", kind, "-A", "-o", "json"]);
    for (const kind of ["events", "connectors", "services", "roles", "configmaps", "pods"]) {
      outputs[kind] = await all(kind);
    }
    for (const node of ["node1", "node2"]) {
      outputs[`kubelet of ${node}`] = await cluster.run(["cat", "kubelet.log"], { node });
    }
    const secrets = { "registry's password": users.alice, "wrong password": wrong, token, api };
    expect(await searchSecrets({ secrets, outputs })).to.deep.equal([]);
  });
});
