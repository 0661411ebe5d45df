import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { readConditions } from "../../../src/controller/conditions.ts";
import { podMonitorDefinition } from "../pod-monitor.ts";
import { type InstalledCluster, install, installedCluster, until } from "./installed-cluster.ts";
import { startNodeRegistry } from "./node-registry.ts";
import { connector, login, namespace, pod, restricted, right } from "./objects.ts";

const team = "uninstall";
const users = { alice: "password-of-alice" };
const root = join(import.meta.dirname, "../../..");
const overlay = join(root, "test/cluster/install");
const elsewhere = join(root, "test/cluster/install-elsewhere");

interface Listed {
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: object;
    readonly managedFields?: object;
  };
}

describe("an uninstallation", function () {
  this.timeout(240_000);
  let cluster: InstalledCluster;
  let address: string;

  before(async function () {
    this.timeout(45 * 60_000); // building a cluster cold
    cluster = await installedCluster();
    address = (await startNodeRegistry(cluster, "uninstall", { auth: "bearer", users })).url;
  });
  // What comes after it needs it again.
  after(async () => {
    if (cluster !== undefined) await install(cluster);
  });

  /** @param allow what else a team does before its Pod can start */
  async function use(allow: () => Promise<void> = async () => {}): Promise<void> {
    await cluster.apply(namespace(team, restricted));
    await cluster.apply(
      login({ namespace: team, name: "login" }, "alice", users.alice),
      connector({ namespace: team, name: "harbor" }, { address, secret: "login" }),
      ...right({ namespace: team, name: "use" }, { connectors: ["harbor"], of: team }),
      pod({ namespace: team, name: "user" }, { volume: { connectors: "harbor" } }),
    );
    await allow();
    await cluster.wait("condition=Ready", "pod/user", team);
    await cluster.wait("condition=Ready", "connector/harbor", team);
  }
  /** Everything in the cluster whose text names us. */
  async function leftovers(): Promise<readonly string[]> {
    const answer = await cluster.kubectl(["api-resources", "--verbs=list", "-o", "name"]);
    const others = /^(events|leases|pods|nodes|componentstatuses)\b/;
    const kinds = answer
      .trim()
      .split("\n")
      .filter((kind) => !others.test(kind));
    const all = await cluster.list<Listed>(kinds.join(","), "", "-A");
    const ours = all.filter((object) => {
      const { managedFields: _, ...metadata } = object.metadata;
      // What users have given each other is theirs.
      if (/^Role(Binding)?$/.test(object.kind) && metadata.labels === undefined) return false;
      const text = JSON.stringify({ ...object, metadata });
      return /connectors-(csi|node|controller|proxy|system|secret|user|puller|admin|doctor)|oci-connector|platform-oci|connectors\.alauda\.io|"c-harbor"/.test(
        text,
      );
    });
    return ours.map(({ kind, metadata }) => `${kind} ${metadata.namespace ?? ""}/${metadata.name}`);
  }

  /** The commands of docs/install.md: the first lists whom to end, the others remove an overlay. */
  async function documentedCommands(): Promise<readonly [list: string, ...others: string[]]> {
    const text = await readFile(join(root, "docs/install.md"), "utf8");
    const [, section = ""] = /^## Uninstall\n(.*?)(?=^## |$(?![\s\S]))/ms.exec(text) ?? [];
    const [, commands = ""] = /^```sh\n(.*?)^```/ms.exec(section) ?? [];
    expect(commands).to.contain("kubectl delete connectors");
    const [list = "", ...others] = commands.split("\n\n");
    return [list, ...others];
  }

  /** Ends all Pods with volumes, and removes everything as docs/install.md says. */
  async function uninstall(folder: string): Promise<void> {
    const [list, ...others] = await documentedCommands();
    const listed = await cluster.run(["bash", "-euc", list]);
    expect(listed).to.contain(`${team}/user`);
    const pods = ["pods", "-A", "-l", "!app.kubernetes.io/name"];
    await cluster.kubectl(["delete", ...pods, "--timeout=120s"]);
    const script = others.join("\n").replaceAll("-k my-cluster/", `-k ${folder}`);
    await cluster.run(["bash", "-euc", script]);
    await cluster.kubectl(["delete", "namespace", team, "--timeout=120s"]);
    expect(await leftovers()).to.deep.equal([]);
    for (const node of ["node1", "node2"]) {
      expect(await cluster.run(["cat", "/proc/mounts"], { node })).not.to.contain(
        "kubernetes.io~csi",
      );
      const sockets = await cluster.run(["ls", "/var/lib/kubelet/plugins_registry"], { node });
      expect(sockets).to.equal("");
    }
  }

  it("in the order of docs/install.md leaves nothing behind", async () => {
    await use();
    await uninstall(overlay);
  });

  it("that left Pods behind is mended by another installation: they end", async () => {
    await install(cluster);
    await use();
    await cluster.kubectl(["delete", "-k", overlay, "--timeout=120s"]);
    await cluster.kubectl(["delete", "pod", "user", "-n", team, "--wait=false"]);
    await install(cluster);
    await until(
      async () => (await cluster.get("pod", "user", team)) === undefined,
      "the Pod stays",
      120,
    );
    await cluster.kubectl(["delete", "namespace", team, "--timeout=120s"]);
  });

  it("leaves nothing behind of all components, in another namespace", async () => {
    await cluster.kubectl(["delete", "-k", overlay, "--timeout=120s"]);
    await cluster.apply(podMonitorDefinition);
    await cluster.wait("condition=Established", "crd/podmonitors.monitoring.coreos.com", "");
    await install(cluster, elsewhere, "platform-oci");
    const driver = await cluster.get("csidriver", "connectors-csi");
    expect(driver?.spec.tokenRequests[0].expirationSeconds).to.equal(7200);
    await use(async () => {
      const binding = ["create", "rolebinding", "pull", "--clusterrole=connectors-puller"];
      await cluster.kubectl([...binding, `--serviceaccount=${team}:default`, "-n", team]);
      const message = await until(async () => {
        const conditions = readConditions(await cluster.get("connector", "harbor", team));
        return conditions.find(({ reason }) => reason === "SecretForbidden")?.message;
      }, "no condition SecretForbidden");
      const [, command = ""] = /`kubectl (.*?)`/.exec(message) ?? [];
      expect(command).to.contain("--serviceaccount=platform-oci:connectors-controller");
      await cluster.kubectl(command.split(" "));
    });
    await uninstall(elsewhere);
    await cluster.kubectl(["delete", "crd", "podmonitors.monitoring.coreos.com"]);
  });
});
