import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { createApiClient } from "../../src/kube/api-client.ts";
import { findHostProcess } from "../../src/node/kubelet-process.ts";
import { changeOf, forgetRestarts } from "../../src/node/kubelet-restart.ts";
import {
  type NodePlaces,
  planKubeletPart,
  removeNodeImages,
  writeKubeletPart,
} from "../../src/node/node-images.ts";
import { rollOutKubeletPart } from "../../src/roles/kubelet-rollout.ts";
import { type FakeApiServer, startFakeApiServer } from "../kube/fake-api-server.ts";
import { cleanup } from "../support/cleanup.ts";
import { makeTempFolder } from "../support/temp-folder.ts";

const namespace = "connectors-system";
const processName = "kubelet-of-a-test";

describe("the rollout of a kubelet's part, with a process that is started again when it ends", function () {
  this.timeout(30_000);
  const resources = cleanup();
  let api: FakeApiServer;
  let root: string;
  let places: NodePlaces;
  /** How often the kubelet was started. */
  let starts: number;
  /** Whether a kubelet with such a configuration gets healthy. */
  let isHealthyWith: (config: string) => boolean;

  beforeEach(async () => {
    api = resources.add(await startFakeApiServer());
    root = resources.add(makeTempFolder("rollout")).path;
    const [certs = "", plugins = "", config = ""] = ["certs.d", "bin", "config.d"].map((name) =>
      join(root, name),
    );
    for (const folder of [certs, plugins, config]) await fs.mkdir(folder);
    places = { certs, plugins, config: { folder: config, file: undefined } };
    await fs.writeFile(join(config, "vendor.yaml"), "# theirs\n");
    await fs.symlink("/bin/sleep", join(root, processName));
    starts = 0;
    isHealthyWith = () => true;
    resources.defer(superviseKubelet());
  });
  afterEach(resources.stop);

  /** A kubelet reads its configuration when it starts, and soon tells the API server that its node is ready. */
  function superviseKubelet(): () => Promise<void> {
    let isEnding = false;
    let child: ChildProcess | undefined;
    const run = async (): Promise<void> => {
      while (!isEnding) {
        const config = await readConfig();
        const isHealthy = isHealthyWith(config);
        child = spawn(join(root, processName), ["1000"], { stdio: "ignore" });
        starts += 1;
        const ended = once(child, "exit");
        const report = setTimeout(() => {
          const lastHeartbeatTime = new Date().toISOString();
          const conditions = [{ type: "Ready", status: "True", lastHeartbeatTime }];
          if (isHealthy) api.put("nodes", { metadata: { name: "node-1" }, status: { conditions } });
        }, 50);
        await ended;
        clearTimeout(report);
        await sleep(50);
      }
    };
    const running = run();
    return async () => {
      isEnding = true;
      child?.kill("SIGKILL");
      await running;
    };
  }

  const configPath = (): string => join(places.config.folder, "oci-connector.yaml");
  const readConfig = (): Promise<string> => fs.readFile(configPath(), "utf8").catch(() => "");

  async function rollOut(...hosts: readonly string[]): Promise<string | undefined> {
    const part = await planKubeletPart(fs, places, new Set(hosts));
    if (!part.ok) throw new Error(part.reason);
    return rollOutKubeletPart(part, {
      client: createApiClient({ access: api.access }),
      namespace,
      nodeName: "node-1",
      processName,
      files: fs,
      places,
      proc: "/proc",
      healthyWithinMs: 2000,
    });
  }
  const turn = (): unknown => api.get("leases", "connectors-node-images", namespace);
  const putTurn = (holderIdentity: string): void =>
    api.put("leases", {
      metadata: { namespace, name: "connectors-node-images" },
      spec: { holderIdentity },
    });
  const started = async (count: number): Promise<void> => {
    while (starts < count) await sleep(20);
  };

  it("restarts it once for each change, and leaves the turn to others", async () => {
    await started(1);
    expect(await rollOut("harbor.example.com")).to.equal(undefined);
    expect(starts).to.equal(2);
    expect(await readConfig()).to.contain("harbor.example.com");
    expect(await rollOut("harbor.example.com")).to.equal(undefined);
    expect(starts).to.equal(2);
    expect(turn()).to.equal(undefined);
    expect(await rollOut("harbor.example.com", "ghcr.io")).to.equal(undefined);
    expect(starts).to.equal(3);
  });

  it("waits for its turn, and writes nothing before", async () => {
    await started(1);
    putTurn("node-2");
    expect(await rollOut("harbor.example.com")).to.match(
      /^the kubelet of node-2 comes first; where it does not get healthy, .* delete the Lease/,
    );
    expect(await readConfig()).to.equal("");
    expect(starts).to.equal(1);
    api.remove("leases", "connectors-node-images", namespace);
    expect(await rollOut("harbor.example.com")).to.equal(undefined);
  });

  it("gives one that is not healthy its old files back, keeps the turn, and does not try again", async () => {
    await started(1);
    isHealthyWith = (config) => !config.includes("bad.example.com");
    expect(await rollOut("bad.example.com")).to.match(/not healthy .* and has its old files back/);
    await started(3);
    expect(await readConfig()).to.equal("");
    expect(turn()).to.have.nested.property("spec.holderIdentity", "node-1");
    expect(await rollOut("bad.example.com")).to.match(/not healthy .* another NODE_IMAGE_HOSTS/);
    expect(starts).to.equal(3);
    // Another change is tried, and comes back to the last good one where it fails.
    expect(await rollOut("good.example.com")).to.equal(undefined);
    const good = await readConfig();
    expect(turn()).to.equal(undefined);
    expect(await rollOut("good.example.com", "bad.example.com")).to.match(/not healthy/);
    expect(await readConfig()).to.equal(good);
  });

  it("takes one that a person has restarted since for one that knows it", async () => {
    await started(1);
    const part = await planKubeletPart(fs, places, new Set(["harbor.example.com"]));
    expect(part.ok).to.equal(true);
    if (part.ok) await fs.writeFile(part.config.path, part.config.content);
    await sleep(2500); // the time of the boot is known to a second
    const kubelet = await findHostProcess(fs, "/proc", processName);
    process.kill(kubelet?.pid ?? 0, "SIGTERM");
    await started(2);
    expect(await rollOut("harbor.example.com")).to.equal(undefined);
    expect(starts).to.equal(2);
  });

  it("goes on with a restart in which it was killed itself: another one only where there was none", async () => {
    await started(1);
    const part = await planKubeletPart(fs, places, new Set(["harbor.example.com"]));
    if (!part.ok) throw new Error(part.reason);
    await writeKubeletPart(fs, places, part);
    putTurn("node-1");
    const { startedAt = 0 } = (await findHostProcess(fs, "/proc", processName)) ?? {};
    const putRecord = (since: number): Promise<void> =>
      fs.writeFile(
        join(places.plugins, ".oci-connector-images.restart"),
        JSON.stringify({
          change: changeOf(part.config.content),
          state: "restarting",
          startedAt: since,
        }),
      );
    await putRecord(startedAt - 1);
    expect(await rollOut("harbor.example.com")).to.equal(undefined);
    expect(starts).to.equal(1);
    expect(turn()).to.equal(undefined);
    await putRecord(startedAt);
    expect(await rollOut("harbor.example.com")).to.equal(undefined);
    expect(starts).to.equal(2);
  });

  it("leaves nothing of it when the node's files are taken back", async () => {
    await started(1);
    await rollOut("harbor.example.com");
    expect(await removeNodeImages(fs, places, false)).to.equal(true);
    await forgetRestarts(fs, places.plugins);
    expect(await fs.readdir(places.plugins)).to.deep.equal([]);
    expect(await fs.readdir(places.config.folder)).to.deep.equal(["vendor.yaml"]);
  });
});
