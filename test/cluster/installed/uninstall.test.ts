import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { type InstalledCluster, install, installedCluster, until } from "./installed-cluster.ts";
import { startNodeRegistry } from "./node-registry.ts";
import { connector, login, namespace, pod, restricted, right } from "./objects.ts";

const team = "uninstall";
const users = { alice: "password-of-alice" };
const root = join(import.meta.dirname, "../../..");

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

  async function use(): Promise<void> {
    await cluster.apply(namespace(team, restricted));
    await cluster.apply(
      login({ namespace: team, name: "login" }, "alice", users.alice),
      connector({ namespace: team, name: "harbor" }, { address, secret: "login" }),
      ...right({ namespace: team, name: "use" }, { connectors: ["harbor"], of: team }),
      pod({ namespace: team, name: "user" }, { volume: { connectors: "harbor" } }),
    );
    await cluster.wait("condition=Ready", "pod/user", team);
    await cluster.wait("condition=Ready", "connector/harbor", team);
  }
  const remove = (): Promise<string> =>
    cluster.kubectl(["delete", "-k", join(root, "test/cluster/install"), "--timeout=120s"]);
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
      return /connectors-(csi|node|controller|proxy|system|secret|user|admin)|connectors\.alauda\.io|"c-harbor"/.test(
        text,
      );
    });
    return ours.map(({ kind, metadata }) => `${kind} ${metadata.namespace ?? ""}/${metadata.name}`);
  }

  it("in the order of docs/install.md leaves nothing behind", async () => {
    await use();
    const text = await readFile(join(root, "docs/install.md"), "utf8");
    const [, section = ""] = /^## Uninstall\n(.*?)(?=^## |$(?![\s\S]))/ms.exec(text) ?? [];
    const [, commands = ""] = /^```sh\n(.*?)^```/ms.exec(section) ?? [];
    expect(commands).to.contain("kubectl delete connectors");
    // The list names whom to end first; here they are ended.
    const listed = await cluster.run(["bash", "-euc", listing(commands)]);
    expect(listed).to.contain(`${team}/user`);
    await cluster.kubectl([
      "delete",
      "pods",
      "-A",
      "-l",
      "!app.kubernetes.io/name",
      "--timeout=120s",
    ]);
    const script = commands.replaceAll("-k daemonset/", `-k ${root}/test/cluster/install`);
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
  });

  const listing = (commands: string): string => commands.split("\n\n")[0] ?? "";

  it("that left Pods behind is mended by another installation: they end", async () => {
    await install(cluster);
    await use();
    await remove();
    await cluster.kubectl(["delete", "pod", "user", "-n", team, "--wait=false"]);
    await install(cluster);
    await until(
      async () => (await cluster.get("pod", "user", team)) === undefined,
      "the Pod stays",
      120,
    );
    await cluster.kubectl(["delete", "namespace", team, "--timeout=120s"]);
  });
});
