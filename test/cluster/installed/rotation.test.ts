import { expect } from "chai";
import { type ClientPods, clientPods, failuresOf, nodes, tellLoops } from "./client-pods.ts";
import { type InstalledCluster, installedCluster, system, until } from "./installed-cluster.ts";
import { startNodeRegistry } from "./node-registry.ts";
import { connector, login, namespace, pod, restricted, right } from "./objects.ts";

const team = "rotation";
const users = { alice: "password-of-alice" };
const secret = "connectors-proxy-keys";
const configMap = "connectors-proxy-ca";
const volumes = "/var/lib/kubelet/pods/*/volumes/kubernetes.io~csi/*/mount";
const certificate = /-----BEGIN CERTIFICATE-----[^-]+-----END/g;

describe("rotation: what is renewed under running Pods", function () {
  this.timeout(240_000);
  let cluster: InstalledCluster;
  let clients: ClientPods;
  let image: string;

  before(async function () {
    this.timeout(45 * 60_000); // building a cluster cold
    cluster = await installedCluster();
    clients = await clientPods(cluster, team);
    const { url: address } = await startNodeRegistry(cluster, "rotation", {
      auth: "bearer",
      users,
    });
    image = `https://c-harbor.${team}.svc.cluster.local/v2/app/base/manifests/1`;
    await cluster.apply(namespace(team, restricted));
    await cluster.apply(
      login({ namespace: team, name: "login" }, "alice", users.alice),
      connector({ namespace: team, name: "harbor" }, { address, secret: "login" }),
      ...right({ namespace: team, name: "use" }, { connectors: ["harbor"], of: team }),
      clients.configMap,
      pod(
        { namespace: team, name: "reader" },
        { volume: { connectors: "harbor", "configuration.names": "docker-config" } },
      ),
    );
    await cluster.wait("condition=Ready", "pod/reader", team);
    await cluster.wait("condition=Ready", "connector/harbor", team);
  });
  after(async () => {
    await cluster?.kubectl(["delete", "pods", "--all", "-n", team, "--timeout=60s"]);
  });

  const exec = (command: string): Promise<string> =>
    cluster.exec(team, "reader", ["sh", "-c", command]);
  /** What the volumes of all Pods trust: each is renewed at its own time. */
  const trusted = async (): Promise<readonly (readonly string[])[]> => {
    const script = `for file in ${volumes}/ca.crt; do [ ! -e $file ] || { cat $file; echo end; }; done`;
    const read = (node: string): Promise<string> => cluster.run(["sh", "-c", script], { node });
    const texts = (await Promise.all(nodes.map(read))).join("").split("end\n");
    return texts.filter((text) => text !== "").map((text) => text.match(certificate) ?? []);
  };
  const everywhere = async (holds: (trusted: readonly string[]) => boolean): Promise<boolean> =>
    (await trusted()).every(holds);
  const keysOf = async (): Promise<readonly string[]> => {
    const found = await cluster.get<{ data: object }>("secret", secret, system);
    return Object.keys(found?.data ?? {});
  };

  it("is the token: a new one reaches the volume, all files together, and no pull fails", async () => {
    const token = (): Promise<string> => exec("cat /run/connectors/context.token");
    const before = await token();
    const results = await clients.whilePulling(image, async () => {
      // It keeps tokens in its memory, so a new kubelet asks for new ones long before the old expire.
      for (const node of ["node1", "node2"]) await cluster.restart("kubelet", { node });
      // A kubelet that has just begun does not know its Pods for a moment.
      const now = (): Promise<string> => token().catch(() => before);
      await until(async () => (await now()) !== before, "the volume keeps its token");
    });
    tellLoops("new tokens", results);
    expect(failuresOf(results)).to.deep.equal([]);
    const folder = "$(readlink -f /run/connectors/..data)";
    const both = await exec(`cat ${folder}/config.json; echo; cat ${folder}/context.token`);
    const [, json = "", now = ""] = /^(.*)\n(\S+)\s*$/s.exec(both) ?? [];
    const { auths } = JSON.parse(json) as { auths: Record<string, { auth: string }> };
    for (const { auth } of Object.values(auths)) {
      expect(Buffer.from(auth, "base64").toString().split(":")[1]).to.equal(now);
    }
  });

  it("is the proxy's authority, with overlap: no verified pull fails from beginning to end", async () => {
    const [[old, ...none] = []] = await trusted();
    expect(none).to.deep.equal([]);
    /** As if a day were over. */
    const aDayLater = async (): Promise<void> => {
      const yesterday = new Date(Date.now() - 25 * 3_600_000).toISOString();
      const since = `connectors.alauda.io/since=${yesterday}`;
      await cluster.kubectl([
        "annotate",
        "configmap",
        configMap,
        "-n",
        system,
        "--overwrite",
        since,
      ]);
    };
    const results = await clients.whilePulling(image, async () => {
      const ask = `connectors.alauda.io/rotate=${Date.now()}`;
      await cluster.kubectl(["annotate", "secret", secret, "-n", system, "--overwrite", ask]);
      await until(
        () => everywhere(({ length }) => length === 2),
        "volumes don't trust the new one",
        120,
      );
      expect(await keysOf()).to.include("next-ca.crt");
      await aDayLater();
      await until(
        async () => (await keysOf()).includes("previous-ca.crt"),
        "it is not promoted",
        120,
      );
      await until(
        () => everywhere(([first, ...others]) => first !== old && others.length > 0),
        "volumes have the old one first",
        120,
      );
      await aDayLater();
      await until(
        async () => !(await keysOf()).includes("previous-ca.crt"),
        "it is not retired",
        120,
      );
      await until(
        () => everywhere(({ length }) => length === 1),
        "volumes still trust the old one",
        120,
      );
    });
    tellLoops("a new authority", results);
    expect(failuresOf(results)).to.deep.equal([]);
    expect(await everywhere(([only]) => only !== undefined && only !== old)).to.equal(true);
  });
});
