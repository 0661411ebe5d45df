import { readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import type { Cluster } from "./cluster.ts";
import { startOwnCluster } from "./own-cluster.ts";

const podOn = (node: string): string =>
  JSON.stringify({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: `on-${node}`, labels: { app: "web" } },
    spec: {
      nodeName: node,
      terminationGracePeriodSeconds: 0,
      containers: [
        {
          name: "web",
          image: "localhost/box:1",
          imagePullPolicy: "Never",
          command: ["sh", "-c", "hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"],
          readinessProbe: { httpGet: { port: 8080, path: "/index.html" }, periodSeconds: 1 },
        },
      ],
    },
  });

const service = JSON.stringify({
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "web" },
  spec: { selector: { app: "web" }, ports: [{ port: 80, targetPort: 8080 }] },
});

describe("a cluster of two nodes", function () {
  this.timeout(120_000);
  const resources = cleanup();
  let cluster: Cluster;

  before(async function () {
    this.timeout(30 * 60_000); // building it cold
    cluster = resources.add(await startOwnCluster({ nodes: 2 }));
    await cluster.kubectl(["apply", "-f", "-"], service);
    for (const node of ["node1", "node2"]) {
      await cluster.kubectl(["apply", "-f", "-"], podOn(node));
    }
    await cluster.kubectl(["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"]);
  });
  after(resources.stop);

  it("lets Pods reach those of the other node by the name of their Service", async () => {
    // kube-proxy takes up a new endpoint after a second, so this may go on for a while.
    for (const host of ["on-node1", "on-node2"]) {
      const ask = `until wget -qO- http://web.default | grep -x ${host}; do :; done`;
      const answer = await cluster.kubectl(["exec", "on-node2", "--", "sh", "-c", ask]);
      expect(answer).to.equal(`${host}\n`);
    }
  });

  it("keeps Pods when kubelet and the API server are killed", async () => {
    await cluster.restart("kubelet", { node: "node2", signal: "SIGKILL" });
    await cluster.restart("apiserver", { signal: "SIGKILL" });
    await cluster.run(["sh", "-c", "until kubectl get --raw /readyz; do sleep 0.1; done"]);
    const path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    expect(await cluster.kubectl(["get", "pods", "-o", path])).to.equal("0 0");
  });

  it("leaves nothing behind, also of a program that is stopped", async () => {
    const state = join(cluster.folder, "node2", "kubelet.program.json");
    const { process: kubelet } = JSON.parse(await readFile(state, "utf8"));
    process.kill(kubelet.pid, "SIGSTOP");
    await cluster.stop();
    expect(await readdir(tmpdir())).not.to.include(basename(cluster.folder));
    expect(await readFile("/proc/mounts", "utf8")).not.to.include(cluster.folder);
    const processes = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
    const commands = processes.map((id) => readFile(`/proc/${id}/cmdline`, "utf8").catch(() => ""));
    const ours = (await Promise.all(commands)).filter((line) => line.includes(cluster.folder));
    expect(ours).to.deep.equal([]);
  });
});
