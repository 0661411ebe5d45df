import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { median } from "../../support/statistics.ts";
import { auditLog } from "../control-plane.ts";
import { nodes } from "./client-pods.ts";
import { type InstalledCluster, installedCluster, system, until } from "./installed-cluster.ts";
import { startNodeRegistry } from "./node-registry.ts";
import { connector, login, namespace, pod, restricted, right } from "./objects.ts";

const team = "cost";
const users = { alice: "password-of-alice" };
const connectors = Array.from({ length: 20 }, (_, index) => `registry-${index + 1}`);
const volumes = 50;
const minutes = 1.5;

interface OurPod {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly containers: readonly { readonly name: string }[] };
}

interface AuditLine {
  readonly user: { readonly username: string };
  readonly userAgent?: string;
  readonly verb: string;
  readonly objectRef?: { readonly resource: string };
  readonly requestReceivedTimestamp: string;
}

const healthPorts: Readonly<Record<string, number>> = { csi: 9808, proxy: 9809, controller: 9810 };

describe("the cost of an installation in a cluster", function () {
  this.timeout(10 * 60_000);
  let cluster: InstalledCluster;

  before(async function () {
    this.timeout(45 * 60_000); // building a cluster cold
    cluster = await installedCluster();
    console.log(`      all Ready ${Math.round(cluster.readyAfter / 1000)} s after it was applied`);
    const { url: address } = await startNodeRegistry(cluster, "cost", { auth: "bearer", users });
    await cluster.apply(namespace(team, restricted));
    await cluster.apply(
      login({ namespace: team, name: "login" }, "alice", users.alice),
      ...connectors.map((name) =>
        connector({ namespace: team, name }, { address, secret: "login" }),
      ),
      ...right({ namespace: team, name: "use" }, { connectors, of: team }),
      {
        apiVersion: "v1",
        kind: "ConfigMap",
        metadata: { namespace: team, name: "files" },
        data: { a: "b" },
      },
    );
    for (const name of connectors) await cluster.wait("condition=Ready", `connector/${name}`, team);
  });
  after(async () => {
    await cluster?.kubectl(["delete", "namespace", team, "--timeout=180s"]);
  });

  it("to start a Pod with a volume takes little longer than with a ConfigMap", async () => {
    const plain = (name: string, nodeName: string): object => {
      const made = pod({ namespace: team, name }, { pod: { nodeName } }) as {
        spec: { containers: { volumeMounts: object[] }[]; volumes: object[] };
      };
      made.spec.volumes = [{ name: "files", configMap: { name: "files" } }];
      made.spec.containers[0]?.volumeMounts.push({ name: "files", mountPath: "/files" });
      return made;
    };
    const withVolume = (name: string, nodeName: string): object =>
      pod({ namespace: team, name }, { volume: { connectors: "registry-1" }, pod: { nodeName } });
    const start = async (name: string, object: object): Promise<number> => {
      const begin = performance.now();
      await cluster.apply(object);
      await cluster.wait("condition=Ready", `pod/${name}`, team);
      const took = performance.now() - begin;
      await cluster.kubectl(["delete", "pod", name, "-n", team, "--wait=false"]);
      return took;
    };
    const took: Record<"volume" | "ConfigMap", number[]> = { volume: [], ConfigMap: [] };
    for (let round = 0; round < 30; round += 1) {
      // One of each at a time, each on a node of its own, which they change.
      const [one, other] = round % 2 === 0 ? nodes : ([nodes[1], nodes[0]] as const);
      const [volume, configMap] = await Promise.all([
        start(`v-${round}`, withVolume(`v-${round}`, one)),
        start(`c-${round}`, plain(`c-${round}`, other)),
      ]);
      took.volume.push(volume);
      took.ConfigMap.push(configMap);
    }
    const [volume, configMap] = [median(took.volume), median(took.ConfigMap)].map(Math.round);
    console.log(`      30 Pods, p50: ${volume} ms with a volume, ${configMap} ms with a ConfigMap`);
    expect(volume).to.be.below((configMap ?? 0) * 1.5);
  });

  it("idle, with 50 volumes and 20 connectors, it is little", async () => {
    const names = Array.from({ length: volumes }, (_, index) => `idle-${index + 1}`);
    await cluster.apply(
      ...names.map((name, index) =>
        pod({ namespace: team, name }, { volume: { connectors: connectors[index % 20] ?? "" } }),
      ),
    );
    for (const name of names) await cluster.wait("condition=Ready", `pod/${name}`, team, 300);
    await sleep(15_000); // what their start has caused is over
    const begin = new Date();
    const before = await processes();
    await sleep(minutes * 60_000);
    const end = new Date();
    const after = await processes();
    for (const [what, { cpu, rss }] of after) {
      const share = ((cpu - (before.get(what)?.cpu ?? 0)) / (minutes * 60)) * 100;
      console.log(
        `      ${what}: ${Math.round(rss / 1024 ** 2)} MiB RSS, ${share.toFixed(2)} % of a core`,
      );
    }
    const requests = Map.groupBy(
      (await auditLines()).filter(({ requestReceivedTimestamp }) => {
        const time = new Date(requestReceivedTimestamp);
        return time >= begin && time < end;
      }),
      ({ user, userAgent, verb, objectRef }) =>
        `${user.username.split(":").at(-1)} ${userAgent?.split("/")[0]} ${verb} ${objectRef?.resource}`,
    );
    for (const [what, lines] of requests) {
      console.log(`      ${what}: ${(lines.length / minutes).toFixed(1)} requests a minute`);
    }
    expectFew(requests);
    for (const [what, { rss }] of after) {
      // On a quiet machine csi takes 86 MiB; on a busy one the collector comes later.
      expect(rss / 1024 ** 2, what).to.be.below(what.startsWith("csi") ? 96 : 110);
    }
  });

  /** @param requests of a few minutes, by who makes them and what they ask for */
  function expectFew(requests: ReadonlyMap<string, readonly unknown[]>): void {
    // The controller reads the Secret of each Connector once or twice a minute, so that its conditions follow.
    const ofSecrets = "connectors-controller oci-connector get secrets";
    const reads = requests.get(ofSecrets)?.length ?? 0;
    expect(reads / minutes).to.be.at.most(2 * connectors.length);
    const all = [...requests.values()].flat().length;
    expect((all - reads) / minutes).to.be.below(10 * nodes.length);
  }

  const auditLines = async (): Promise<readonly AuditLine[]> => {
    const text = await readFile(join(cluster.folder, "node1", auditLog), "utf8");
    return text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as AuditLine);
  };

  /** Of each container of ours: the seconds of CPU that it has taken, and its memory in bytes. */
  async function processes(): Promise<ReadonlyMap<string, { cpu: number; rss: number }>> {
    const found = new Map<string, { cpu: number; rss: number }>();
    for (const { metadata, spec } of await cluster.list<OurPod>("pods", system)) {
      for (const { name } of spec.containers) {
        const path = `/api/v1/namespaces/${system}/pods/${metadata.name}:${healthPorts[name]}/proxy/metrics`;
        const text = await until(() => cluster.kubectl(["get", "--raw", path]), path);
        const value = (metric: string): number =>
          Number(new RegExp(`^${metric} (\\S+)$`, "m").exec(text)?.[1]);
        found.set(`${name} in ${metadata.name}`, {
          cpu: value("process_cpu_seconds_total"),
          rss: value("process_resident_memory_bytes"),
        });
      }
    }
    return found;
  }
});
