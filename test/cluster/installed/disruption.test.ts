import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { parse } from "yaml";
import { type ClientPods, clientPods, failuresOf, nodes, tellLoops } from "./client-pods.ts";
import { signalContainers } from "./containers.ts";
import { type InstalledCluster, installedCluster, system, until } from "./installed-cluster.ts";
import { type NodeRegistry, startNodeRegistry } from "./node-registry.ts";
import { connector, login, namespace, pod, restricted, right } from "./objects.ts";

const team = "disruption";
const users = { alice: "password-of-alice" };
const harbor = { namespace: team, name: "harbor" };
const repository = `http://c-harbor.${team}.svc.cluster.local/v2/app/base`;
const image = `${repository}/manifests/1`;

interface OurPod {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly nodeName: string };
  readonly status: {
    readonly containerStatuses: readonly {
      readonly name: string;
      readonly restartCount: number;
      readonly ready: boolean;
    }[];
  };
}

/** The DaemonSet as it is installed; that of the tests does not wait as long. */
const shipped = parse(
  readFileSync(join(import.meta.dirname, "../../../daemonset/daemonset.yaml"), "utf8"),
) as { readonly spec: { readonly minReadySeconds: number } };

describe("running Pods, while what serves them ends and begins again", function () {
  this.timeout(180_000);
  let cluster: InstalledCluster;
  let registry: NodeRegistry;
  let clients: ClientPods;

  before(async function () {
    this.timeout(45 * 60_000); // building a cluster cold
    cluster = await installedCluster();
    registry = await startNodeRegistry(cluster, "disruption", { auth: "bearer", users });
    clients = await clientPods(cluster, team);
    await cluster.apply(
      namespace(team, restricted),
      login({ namespace: team, name: "alice" }, "alice", users.alice),
      connector(harbor, { address: registry.url, secret: "alice" }),
      ...right({ namespace: team, name: "use" }, { connectors: ["harbor"], of: team }),
      clients.configMap,
    );
    await cluster.wait("condition=Ready", "connector/harbor", team);
    const still = nodes.map((node) => clients.pod(`still-${node}`, node, ["loop", image]));
    await cluster.apply(...still);
    for (const node of nodes) await cluster.wait("condition=Ready", `pod/still-${node}`, team);
  });
  after(async () => {
    await cluster?.kubectl(["delete", "pods", "--all", "-n", team, "--timeout=60s"]);
  });

  const ours = (): Promise<readonly OurPod[]> =>
    cluster.list<OurPod>("pods", system, "-l", "app.kubernetes.io/name=oci-connector");
  const nodePods = async (): Promise<readonly OurPod[]> =>
    (await ours()).filter(({ metadata }) => metadata.name.startsWith("connectors-node-"));
  /** Waits until all of ours runs, and every node has the driver. */
  const healthy = (): Promise<boolean> =>
    until(async () => {
      const pods = await ours();
      const isReady = pods.every(({ status }) =>
        status.containerStatuses?.every((one) => one.ready),
      );
      const registered = await Promise.all(
        nodes.map((node) => cluster.get<{ spec: { drivers: object[] | null } }>("csinode", node)),
      );
      return (
        pods.length === 3 && isReady && registered.every((one) => one?.spec.drivers?.length === 1)
      );
    }, "not everything of ours is Ready");
  const mounts = async (node: string): Promise<readonly string[]> =>
    (await cluster.run(["cat", "/proc/mounts"], { node }))
      .split("\n")
      .filter((line) => line.includes("kubernetes.io~csi/connectors"));
  /** A new Pod with a volume, from its creation until it is Ready, in milliseconds. */
  async function startOne(node: string): Promise<number> {
    const begin = performance.now();
    const name = `new-${node}`;
    await cluster.apply(clients.pod(name, node, ["loop", image]));
    await cluster.wait("condition=Ready", `pod/${name}`, team, 120);
    const took = performance.now() - begin;
    await clients.loops(name); // before that it is deaf to SIGTERM
    await cluster.kubectl(["delete", "pod", name, "-n", team, "--timeout=60s"]);
    return took;
  }
  /** Volumes of Pods that run all the while: each is mounted once, and new Pods start. */
  async function recovered(what: string): Promise<void> {
    const begin = performance.now();
    await healthy();
    const took = Math.round((performance.now() - begin) / 1000);
    const started = await Promise.all(nodes.map(startOne));
    for (const node of nodes) {
      const targets = (await mounts(node)).map((line) => line.split(" ")[1]);
      expect(targets.length, node).to.equal(new Set(targets).size);
    }
    const slowest = Math.round(Math.max(...started) / 1000);
    console.log(`      ${what}: all Ready after ${took} s, new Pods after ${slowest} s`);
  }

  it("pull through the proxy of their own node", async () => {
    const pullOn = async (node: string): Promise<void> => {
      const name = (await ours()).find(
        (one) => one.spec.nodeName === node && one.status.containerStatuses.length === 2,
      );
      const args = ["logs", name?.metadata.name ?? "", "-c", "proxy", "-n", system];
      const before = (await cluster.kubectl(args)).split(`"pod":"${team}/own-${node}"`).length;
      await cluster.apply(clients.pod(`own-${node}`, node, ["loop", image]));
      await clients.loops(`own-${node}`);
      await sleep(1_000);
      const { count, failures } = await clients.endLoop(`own-${node}`, node);
      expect(failures).to.deep.equal([]);
      const seen =
        (await cluster.kubectl(args)).split(`"pod":"${team}/own-${node}"`).length - before;
      expect(seen, node).to.equal(count);
    };
    await Promise.all(nodes.map(pullOn));
  });

  it("do not notice that the driver is killed", async () => {
    const results = await clients.whilePulling(image, async () => {
      // Its Pod is not Ready then, so its proxy is left alone for a moment: another node's has to be there.
      for (const node of nodes) {
        const count = await signalContainers(cluster, { node, container: "csi" }, "SIGKILL");
        expect(count).to.equal(1);
        await recovered("csi killed");
      }
    });
    tellLoops("csi killed", results);
    expect(failuresOf(results)).to.deep.equal([]);
  });

  it("do not notice that the controller is killed", async () => {
    const results = await clients.whilePulling(image, async () => {
      for (const node of nodes) {
        await signalContainers(cluster, { node, container: "controller" }, "SIGKILL");
      }
      await recovered("controller killed");
    });
    tellLoops("controller killed", results);
    expect(failuresOf(results)).to.deep.equal([]);
  });

  it("get by when a proxy is killed: what comes then is served again", async () => {
    const results = await clients.whilePulling(image, async () => {
      await signalContainers(cluster, { node: "node1", container: "proxy" }, "SIGKILL");
      await recovered("proxy killed");
    });
    tellLoops("proxy killed", results);
    const [own, other] = results;
    expect(other?.failures).to.deep.equal([]);
    expect(own?.count).to.be.greaterThan(own?.failures.length ?? 0);
  });

  it("do not notice that a kubelet begins again", async () => {
    const results = await clients.whilePulling(image, async () => {
      await cluster.restart("kubelet", { node: "node2", signal: "SIGKILL" });
      await recovered("kubelet killed");
    });
    tellLoops("kubelet killed", results);
    expect(failuresOf(results)).to.deep.equal([]);
  });

  it("end after a reboot of their node, though their Connector is gone by then", async () => {
    const at = { namespace: team, name: "passing" };
    await cluster.apply(
      connector(at, { address: registry.url, secret: "alice" }),
      ...right(at, { connectors: ["passing"], of: team }),
      pod(at, { volume: { connectors: "passing" }, pod: { nodeName: "node2" } }),
    );
    await cluster.wait("condition=Ready", "pod/passing", team);
    const uid = (await cluster.get("pod", "passing", team))?.metadata.uid ?? "";
    const ofPod = async (): Promise<readonly string[]> =>
      (await mounts("node2")).filter((line) => line.includes(uid));
    expect(await ofPod()).to.have.length(1);
    await cluster.restart("kubelet", {
      node: "node2",
      signal: "SIGKILL",
      async meanwhile() {
        await signalContainers(cluster, { node: "node2", pod: "passing" }, "SIGKILL");
        const [, target = ""] = (await ofPod())[0]?.split(" ") ?? [];
        await cluster.run(["umount", target], { node: "node2" });
        await cluster.kubectl(["delete", "connector", "passing", "-n", team]);
      },
    });
    await until(async () => {
      const events = await cluster.list<{ reason: string; message: string }>("events", team);
      return events.some(
        ({ reason, message }) =>
          reason === "FailedMount" && message.includes(`"${team}/passing" not found`),
      );
    }, "no event says that the Connector is gone");
    await cluster.kubectl(["delete", "pod", "passing", "-n", team, "--timeout=60s"]);
    expect(await ofPod()).to.deep.equal([]);
  });

  it("are asked to wait, and never refused, when their Connector is deleted and made again", async () => {
    let ready = 0;
    const results = await clients.whilePulling(image, async () => {
      await cluster.kubectl(["delete", "connector", "harbor", "-n", team]);
      const begin = performance.now();
      await cluster.apply(connector(harbor, { address: registry.url, secret: "alice" }));
      await cluster.wait("condition=Ready", "connector/harbor", team);
      ready = Math.round(performance.now() - begin);
      await sleep(1_000);
    });
    tellLoops(`a Connector made again, Ready after ${ready} ms`, results);
    const refused = failuresOf(results).filter((failure) => !/^(404|503) /.test(failure));
    expect(refused).to.deep.equal([]);
  });

  it("do not notice that containerd begins again", async () => {
    const results = await clients.whilePulling(image, async () => {
      await cluster.restart("containerd", { node: "node2", signal: "SIGKILL" });
      await recovered("containerd killed");
    });
    tellLoops("containerd killed", results);
    expect(failuresOf(results)).to.deep.equal([]);
  });

  it("do not notice that the API server begins again", async () => {
    const results = await clients.whilePulling(image, async () => {
      await cluster.restart("apiserver", { signal: "SIGKILL" });
      await cluster.run(["sh", "-c", "until kubectl get --raw /readyz; do sleep 0.2; done"]);
      await recovered("API server killed");
    });
    tellLoops("API server killed", results);
    expect(failuresOf(results)).to.deep.equal([]);
  });

  /** A change of the proxy that no node may get beyond the first. */
  const broken: Readonly<Record<string, object>> = {
    "can't start": { args: ["no-such-role"] },
    // As one whose limit of memory is too small.
    "is ready, and dies some seconds later": {
      command: [
        "/bin/node",
        "--import=data:text/javascript,setTimeout(()=>process.exit(1),6000)",
        "/app/dist/main.js",
      ],
    },
  };
  for (const [what, change] of Object.entries(broken)) {
    it(`do not notice an update whose proxy ${what}, beyond the first node`, async () => {
      const before = await nodePods();
      const containers = [{ name: "proxy", ...change }];
      const spec = {
        minReadySeconds: shipped.spec.minReadySeconds,
        template: { spec: { containers } },
      };
      const results = await clients.whilePulling(image, async () => {
        const patch = ["patch", "daemonset", "connectors-node", "-n", system, "-p"];
        await cluster.kubectl([...patch, JSON.stringify({ spec })]);
        const isNew = ({ metadata }: OurPod): boolean =>
          !before.some((old) => old.metadata.name === metadata.name);
        await until(async () => (await nodePods()).some(isNew), "no new Pod comes");
        // Long enough for the next node to have its turn, where a Pod counts as soon as it is ready.
        await sleep("args" in change ? 3_000 : 9_000);
        const now = await nodePods();
        expect(now.filter(isNew)).to.have.length(1);
        expect(now.length).to.equal(before.length + 1);
        await cluster.kubectl(["rollout", "undo", "daemonset/connectors-node", "-n", system]);
        await until(async () => !(await nodePods()).some(isNew), "the new Pod stays", 120);
        await recovered(`an update whose proxy ${what}`);
      });
      tellLoops(`an update whose proxy ${what}`, results);
      const failing = results.filter(({ failures }) => failures.length > 0);
      expect(failing.length).to.be.lessThanOrEqual("args" in change ? 0 : 1);
    });
  }

  it("do not notice an update of the DaemonSet, nor does a push of 1 GiB", async function () {
    this.timeout(10 * 60_000);
    const size = 1024 * 1024 * 1024;
    const results = await clients.whilePulling(image, async () => {
      const args = ["push", repository, `${size}`, `${40 * 1024 * 1024}`];
      await cluster.apply(clients.pod("push", "node1", args));
      await cluster.wait("condition=Ready", "pod/push", team);
      for (let round = 1; round <= 3; round += 1) {
        await cluster.kubectl(["rollout", "restart", "daemonset/connectors-node", "-n", system]);
        const status = ["rollout", "status", "daemonset/connectors-node", "-n", system];
        await Promise.all([
          cluster.kubectl([...status, "--timeout=120s"]),
          // The driver is away for a second on each node; a publish succeeds at the kubelet's next try.
          ...nodes.map(startOne),
        ]);
        for (const node of nodes) {
          const one = await cluster.get<{ spec: { drivers: object[] } }>("csinode", node);
          expect(one?.spec.drivers, `${node}, round ${round}`).to.have.length(1);
        }
      }
      await cluster.wait("jsonpath={.status.phase}=Succeeded", "pod/push", team, 300);
    });
    tellLoops("three updates", results);
    expect(await clients.lastLine("push")).to.include({ status: 201 });
    expect(failuresOf(results)).to.deep.equal([]);
    await recovered("three updates");
  });
});
