import { readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { expect } from "chai";
import fc from "fast-check";
import { decodeJwt } from "jose";
import { cleanup } from "../support/cleanup.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { eventually } from "./eventually.ts";
import {
  type RunningKeeper,
  requestFor,
  type SimulatedNode,
  simulatedNode,
  tokenIn,
  tokenLifetimeSeconds,
} from "./simulated-node.ts";

describe("the keeper of volumes in standalone mode", function () {
  this.timeout(30_000);
  const resources = cleanup();
  let folder: string;
  let node: SimulatedNode;
  let keeper: RunningKeeper;

  beforeEach(async () => {
    folder = resources.add(makeTempFolder("keeper")).path;
    node = simulatedNode(folder);
    keeper = await start();
  });
  afterEach(async () => {
    node.before = () => {};
    await resources.stop();
    for (const { secrets } of node.published) {
      expect(node.log.lines.join("")).not.to.include(tokenIn({ ...requestFor("x"), secrets }));
    }
  });

  const start = async (): Promise<RunningKeeper> => resources.add(await node.start());
  const records = (): Promise<string[]> => readdir(folder);
  const tokenAt = (volumeId: string): string => node.mounts.get(`/target/${volumeId}`) ?? "none";
  const opens = async (token: string, by: RunningKeeper = keeper): Promise<boolean> =>
    (await by.verify(token)).ok;
  const failing = (call: string, error = new Error("the disk is on fire")): void => {
    node.before = (made) => {
      if (made === call) throw error;
    };
  };
  const pass = async (seconds: number): Promise<void> => {
    node.time += (seconds - 1) * 1000;
    await keeper.tick();
  };

  it("gives a volume a token for its connectors, as the kubelet would", async () => {
    const attributes = { connectors: "harbor,team-b/ghcr", "token.expiration": "10m" };
    const request = { ...requestFor("v1", attributes), secrets: { other: "not ours" } };
    expect(await keeper.publish(request)).to.have.property("ok", true);
    const [published] = node.published;
    expect(published).to.deep.include({ ...request, secrets: published?.secrets });
    const expirationTimestamp = new Date(node.time + 600_000).toISOString();
    expect(published?.secrets).to.deep.equal({
      "csi.storage.k8s.io/serviceAccount.tokens": JSON.stringify({
        "connectors-proxy": { token: tokenAt("v1"), expirationTimestamp },
      }),
    });
    expect(await keeper.verify(tokenAt("v1"))).to.deep.include({
      ok: true,
      value: {
        user: "volume:v1",
        groups: [],
        subject: decodeJwt(tokenAt("v1")).mount,
        connectors: ["default/harbor", "team-b/ghcr"],
      },
    });
  });

  it("takes connectors without a namespace from the request's own", async () => {
    const context = { connectors: "harbor", "csi.storage.k8s.io/pod.namespace": "team-a" };
    await keeper.publish(requestFor("v1", context));
    expect(decodeJwt(tokenAt("v1")).connectors).to.deep.equal(["team-a/harbor"]);
    expect(decodeJwt(tokenAt("v1")).exp).to.equal(node.time / 1000 + tokenLifetimeSeconds);
  });

  it("refuses a request that can't be right, and does nothing", async () => {
    const refused = await Promise.all([
      keeper.publish(requestFor("v1", { connectors: "harbor", colour: "red" })),
      keeper.publish(requestFor("../v1")),
      keeper.publish(requestFor("")),
    ]);
    expect(refused.map(({ ok }) => ok)).to.deep.equal([false, false, false]);
    expect(JSON.stringify(refused)).to.include("colour").and.include("volume_id");
    expect(node.calls).to.deep.equal([]);
    expect(await records()).to.deep.equal([]);
  });

  it("accepts a token as soon as a tool can read it, also before the publish has ended", async () => {
    let accepted: boolean | undefined;
    node.after = async () => {
      accepted = await opens(tokenAt("v1"));
    };
    await keeper.publish(requestFor("v1"));
    expect(accepted).to.equal(true);
  });

  it("leaves nothing of a first publish that fails", async () => {
    failing("publish v1");
    expect(String(await keeper.publish(requestFor("v1")).catch((e: unknown) => e))).to.include(
      "on fire",
    );
    expect(await records()).to.deep.equal([]);
    await pass(100_000);
    expect(node.calls).to.deep.equal(["publish v1"]);
  });

  it("unmounts what was mounted for somebody who has gone", async () => {
    const caller = new AbortController();
    node.before = () => caller.abort(new Error("gone"));
    const outcome = await keeper.publish(requestFor("v1"), caller.signal).catch(String);
    expect(outcome).to.include("gone");
    expect(await opens(tokenAt("v1"))).to.equal(false);
    await keeper.tick();
    await eventually(async () => node.mounts.size === 0 && (await records()).length === 0);
  });

  it("writes its records for itself alone, and no secret into them", async () => {
    await keeper.publish({ ...requestFor("v1"), secrets: { other: "hush-hush" } });
    expect(await records()).to.deep.equal(["v1.json"]);
    const path = join(folder, "v1.json");
    expect((await stat(path)).mode & 0o777).to.equal(0o600);
    const text = await readFile(path, "utf8");
    expect(text).not.to.include("hush-hush").and.not.include(tokenAt("v1"));
  });

  it("refuses tokens from the unmount on, and those of earlier mounts for ever", async () => {
    await keeper.publish(requestFor("v1"));
    const old = tokenAt("v1");
    await keeper.unpublish(requestFor("v1"));
    expect(await opens(old)).to.equal(false);
    expect(node.mounts.size).to.equal(0);
    expect(await records()).to.deep.equal([]);
    await keeper.publish(requestFor("v1"));
    expect(await opens(old)).to.equal(false);
    expect(await opens(tokenAt("v1"))).to.equal(true);
  });

  it("unmounts what it doesn't know, and never a file outside", async () => {
    const outside = `${folder}.json`;
    await writeFile(outside, "");
    resources.defer(() => rm(outside));
    node.mounts.set("/target/stray", "x");
    const volumeId = `../${basename(folder)}`;
    await keeper.unpublish({ volumeId, targetPath: "/target/stray" });
    expect(node.mounts.size).to.equal(0);
    expect(await readFile(outside, "utf8")).to.equal("");
  });

  it("keeps a volume whose unmount names another target, and says where it is", async () => {
    await keeper.publish(requestFor("v1"));
    const result = await keeper.unpublish({ volumeId: "v1", targetPath: "/target/v2" });
    expect(result.ok ? "" : result.reason)
      .to.include('"v1" is mounted at "/target/v1"')
      .and.include('not at "/target/v2"');
    expect(await opens(tokenAt("v1"))).to.equal(true);
    expect(node.calls).to.deep.equal(["publish v1"]);
    const other = await keeper.unpublish({ volumeId: "v1", targetPath: "/link/v1" });
    expect(other.ok).to.equal(true);
    expect(keeper.knows("v1")).to.equal(false);
  });

  it("takes the token back first where an unmount fails, and goes on with the unmount", async () => {
    await keeper.publish(requestFor("v1"));
    failing("unpublish v1", new Error("it can't be unmounted"));
    expect(await keeper.unpublish(requestFor("v1")).catch(String)).to.include("can't be unmounted");
    expect(await opens(tokenAt("v1"))).to.equal(false);
    expect(keeper.knows("v1")).to.equal(true);
    node.before = () => {};
    await keeper.tick();
    await eventually(async () => !keeper.knows("v1") && (await records()).length === 0);
    expect(node.mounts.size).to.equal(0);
  });

  it("goes on with it also where the process ends in between", async () => {
    await keeper.publish(requestFor("v1"));
    failing("unpublish v1");
    await keeper.unpublish(requestFor("v1")).catch(String);
    await keeper.stop();
    node.before = () => {};
    keeper = await start();
    expect(await opens(tokenAt("v1"))).to.equal(false);
    await keeper.tick();
    await eventually(() => node.mounts.size === 0);
  });

  it("renews a token when a quarter of its lifetime is used up", async () => {
    await keeper.publish(requestFor("v1"));
    const first = tokenAt("v1");
    await pass(tokenLifetimeSeconds / 4 - 1);
    expect(node.calls).to.have.length(1);
    await pass(2);
    await eventually(() => node.calls.length === 2);
    const second = tokenAt("v1");
    expect(second).not.to.equal(first);
    expect(await opens(first)).to.equal(true);
    expect(decodeJwt(second).mount).to.equal(decodeJwt(first).mount);
    await pass(tokenLifetimeSeconds / 4 + 1);
    await eventually(() => node.calls.length === 3);
  });

  it("renews at once after a sleep of the machine, and survives years of it", async () => {
    await keeper.publish(requestFor("v1"));
    await pass(10 * 365 * 24 * 3600);
    await eventually(() => node.calls.length === 2);
    expect(await opens(tokenAt("v1"))).to.equal(true);
  });

  it("publishes the volumes of a connector that has changed, and no others", async () => {
    await keeper.publish(requestFor("v1"));
    await keeper.publish(requestFor("v2", { connectors: "ghcr,nexus" }));
    keeper.connectorsChanged(new Set(["default/nexus"]));
    keeper.connectorsChanged(new Set(["default/nexus", "team-b/harbor"]));
    await keeper.tick();
    await eventually(() => node.calls.length === 3);
    await keeper.tick();
    expect(node.calls).to.deep.equal(["publish v1", "publish v2", "publish v2"]);
  });

  it("publishes once more where a connector changes during a publish", async () => {
    await keeper.publish(requestFor("v1"));
    const gate = Promise.withResolvers<void>();
    node.before = () => gate.promise;
    keeper.connectorsChanged(new Set(["default/harbor"]));
    await keeper.tick();
    await eventually(() => node.calls.length === 2);
    keeper.connectorsChanged(new Set(["default/harbor"]));
    gate.resolve();
    await eventually(() => node.published.length === 2);
    await keeper.tick();
    await eventually(() => node.published.length === 3);
  });

  it("retries what fails ever more slowly, and logs it once per change", async () => {
    await keeper.publish(requestFor("v1"));
    failing("publish v1");
    keeper.connectorsChanged(new Set(["default/harbor"]));
    await keeper.tick();
    let calls = 2;
    for (const delay of [1, 2, 4, 8, 16, 32, 60, 60]) {
      await eventually(() => node.calls.length === calls);
      await pass(delay - 1);
      expect(node.calls).to.have.length(calls++);
      await pass(1);
    }
    await eventually(() => node.calls.length === calls);
    expect(node.log.count('"error"')).to.equal(1);
    expect(node.log.count('"error"', "/target/v1", "on fire")).to.equal(1);
    failing("publish v1", new Error("the disk is full"));
    await pass(60);
    await eventually(() => node.log.count('"error"') === 2);
    node.before = () => {};
    await pass(61);
    await eventually(() => node.log.count("up to date again", "/target/v1") === 1);
    expect(await opens(tokenAt("v1"))).to.equal(true);
  });

  it("doesn't let one slow volume hold up another", async () => {
    await keeper.publish(requestFor("v1"));
    const gate = Promise.withResolvers<void>();
    node.before = (call) => (call.endsWith("v1") ? gate.promise : undefined);
    keeper.connectorsChanged(new Set(["default/harbor"]));
    await keeper.tick();
    await eventually(() => node.calls.length === 2);
    await keeper.publish(requestFor("v2"));
    await keeper.unpublish(requestFor("v2"));
    const unmounted = keeper.unpublish(requestFor("v1"));
    await keeper.tick();
    expect(node.calls).not.to.include("unpublish v1");
    gate.resolve();
    await unmounted;
    expect(node.calls.slice(-1)).to.deep.equal(["unpublish v1"]);
  });

  it("brings a volume up to date that is mounted again in the same way", async () => {
    await keeper.publish(requestFor("v1"));
    const first = tokenAt("v1");
    await keeper.publish(requestFor("v1"));
    expect(node.calls).to.deep.equal(["publish v1", "publish v1"]);
    expect(await opens(first)).to.equal(true);
  });

  it("replaces a volume that is mounted again in another way", async () => {
    await keeper.publish(requestFor("v1", { connectors: "harbor,ghcr" }));
    const first = tokenAt("v1");
    await keeper.publish(requestFor("v1", { connectors: "harbor" }));
    expect(node.calls).to.deep.equal(["publish v1", "unpublish v1", "publish v1"]);
    expect(await opens(first)).to.equal(false);
    expect(await opens(tokenAt("v1"))).to.equal(true);
  });

  it("puts the old volume back where its replacement fails", async () => {
    await keeper.publish(requestFor("v1", { connectors: "harbor" }));
    const first = tokenAt("v1");
    let publishes = 0;
    node.before = (call) => {
      if (call === "publish v1" && ++publishes === 1) throw new Error("no such connector");
    };
    const failed = await keeper.publish(requestFor("v1", { connectors: "typo" })).catch(String);
    expect(failed).to.include("no such connector");
    expect(decodeJwt(tokenAt("v1")).connectors).to.deep.equal(["default/harbor"]);
    expect(await opens(first)).to.equal(true);
    expect(await records()).to.deep.equal(["v1.json"]);
  });

  it("goes on with all recorded volumes after a restart, as the same mounts", async () => {
    await keeper.publish(requestFor("v1"));
    await keeper.publish({ ...requestFor("v2"), readonly: false });
    const held = [tokenAt("v1"), tokenAt("v2")];
    const before = node.published.map((request) => ({ ...request, secrets: {} }));
    await keeper.stop();
    node.published.length = 0;
    keeper = await start();
    expect(await Promise.all(held.map((token) => opens(token)))).to.deep.equal([true, true]);
    await keeper.tick();
    await eventually(() => node.published.length === 2);
    const after = node.published.map((request) => ({ ...request, secrets: {} }));
    expect(after).to.have.deep.members(before);
    expect(await Promise.all(held.map((token) => opens(token)))).to.deep.equal([true, true]);
    await keeper.unpublish(requestFor("v1"));
    expect(await opens(held[0] ?? "")).to.equal(false);
  });

  describe("ends a volume, token first", () => {
    const request = requestFor("v1");
    const ended = async (reason: string): Promise<void> => {
      const token = tokenAt("v1");
      await keeper.tick();
      await eventually(() => !keeper.knows("v1") || keeper.list({ uid: 0 })[0]?.isUsable === false);
      expect(await opens(token)).to.equal(false);
      await keeper.tick();
      await eventually(async () => !keeper.knows("v1") && (await records()).length === 0);
      expect(node.mounts.size).to.equal(0);
      expect(node.log.count("a volume has ended", "/target/v1", reason)).to.equal(1);
    };

    it("when its time is over, and not before", async () => {
      const mounted = await keeper.mount(request, { lifetimeMs: 10_000 });
      expect(mounted).to.have.nested.property("value.endsAt", node.time + 10_000);
      await pass(9);
      expect(keeper.knows("v1")).to.equal(true);
      expect(await opens(tokenAt("v1"))).to.equal(true);
      await ended("its time is over");
    });

    it("when its process has ended, or the number is another process's", async () => {
      for (const later of [undefined, 78]) {
        node.processes.set(4711, 77);
        node.log.lines.length = 0;
        await keeper.mount(request, { process: { pid: 4711, startTicks: 77 } });
        await keeper.tick();
        expect(keeper.knows("v1")).to.equal(true);
        if (later === undefined) node.processes.delete(4711);
        else node.processes.set(4711, later);
        await ended("process 4711 has ended");
      }
    });

    it("when somebody else has unmounted it", async () => {
      await keeper.mount(request);
      const token = tokenAt("v1");
      node.mounts.clear();
      await keeper.tick();
      await eventually(async () => !(await opens(token)));
      await keeper.tick();
      await eventually(() => !keeper.knows("v1"));
      expect(node.calls).to.deep.equal(["publish v1", "unpublish v1"]);
    });

    it("at the start of a process after its end, before anybody can use it", async () => {
      await keeper.mount(request, { lifetimeMs: 10_000 });
      const token = tokenAt("v1");
      await keeper.stop();
      node.time += 10_000;
      keeper = await start();
      expect(await opens(token)).to.equal(false);
      await keeper.tick();
      await eventually(() => node.mounts.size === 0);
    });

    it("at the start of a process whose operator does not allow its owner any more", async () => {
      const keeper = await node.start();
      await keeper.mount(requestFor("v1"), {}, 1000);
      await keeper.mount(requestFor("v2"), {}, 1001);
      await keeper.stop();
      node.forbidden = 1000;
      const next = await node.start();
      expect(next.list({ uid: 1000 })[0]?.isUsable).to.equal(false);
      expect(next.list({ uid: 1001 })[0]?.isUsable).to.equal(true);
      const refused = await next.mount(requestFor("v3"), {}, 1000);
      expect(refused.ok).to.equal(false);
      await next.tick();
      await eventually(() => !next.knows("v1"));
      await next.stop();
    });

    it("after a reboot, unless it is persistent, which is mounted again as another mount", async () => {
      await keeper.mount(request, {});
      await keeper.mount(requestFor("v2"), { isPersistent: true });
      const tokens = [tokenAt("v1"), tokenAt("v2")];
      await keeper.stop();
      node.mounts.clear();
      node.boot = "boot-2";
      keeper = await start();
      expect(await Promise.all(tokens.map((token) => opens(token)))).to.deep.equal([false, false]);
      failing("publish v2");
      await keeper.tick();
      await eventually(() => !keeper.knows("v1"));
      expect(node.mounts.size).to.equal(0);
      node.before = () => {};
      await pass(5);
      await eventually(() => node.mounts.size === 1);
      await eventually(async () => await opens(tokenAt("v2")));
      expect(await opens(tokens[1] ?? "")).to.equal(false);
      await keeper.stop();
      keeper = await start();
      expect(await opens(tokenAt("v2"))).to.equal(true);
    });

    it("but no volume of a record from before there were ends, until the next reboot", async () => {
      await keeper.publish(request);
      await keeper.stop();
      const path = join(folder, "v1.json");
      const { life, origin, ...old } = JSON.parse(await readFile(path, "utf8"));
      expect(life).to.deep.equal({ boot: "boot-1", persistent: false });
      expect(origin).to.deep.equal({ uid: 0, mountedAt: node.time });
      await writeFile(path, JSON.stringify(old), { mode: 0o600 });
      keeper = await start();
      await pass(1000 * 24 * 3600);
      await eventually(async () => await opens(tokenAt("v1")));
      await keeper.stop();
      node.mounts.clear();
      node.boot = "boot-2";
      keeper = await start();
      await keeper.tick();
      await eventually(() => !keeper.knows("v1"));
    });
  });

  describe("mounts a volume for a caller", () => {
    const refusal = async (mounting: Promise<{ ok: boolean }>): Promise<string> =>
      JSON.stringify(await mounting);

    it("where none is, nothing is hidden, and not inside of another", async () => {
      await keeper.mount(requestFor("v1"));
      expect(await refusal(keeper.mount(requestFor("v1")))).to.include("--replace");
      const inside = { ...requestFor("v2"), targetPath: "/target/v1/deeper/v2" };
      expect(await refusal(keeper.mount(inside, { replaces: true, hidesFiles: true }))).to.include(
        "lies in the volume",
      );
      node.files.add("/target/v3");
      expect(await refusal(keeper.mount(requestFor("v3")))).to.include("--force");
      expect(node.calls).to.deep.equal(["publish v1"]);
      expect((await keeper.mount(requestFor("v3"), { hidesFiles: true })).ok).to.equal(true);
    });

    it("in the place of another volume, where it is told so, and of one that has been unmounted", async () => {
      await keeper.mount(requestFor("v1"));
      const old = tokenAt("v1");
      expect((await keeper.mount(requestFor("v1"), { replaces: true })).ok).to.equal(true);
      expect(await opens(old)).to.equal(false);
      const second = tokenAt("v1");
      node.mounts.clear();
      expect((await keeper.mount(requestFor("v1"))).ok).to.equal(true);
      expect(await opens(second)).to.equal(false);
      expect(await opens(tokenAt("v1"))).to.equal(true);
    });

    it("and not with a process that there is none of", async () => {
      const process = { pid: 4711, startTicks: 77 };
      expect(await refusal(keeper.mount(requestFor("v1"), { process }))).to.include("4711");
      expect(node.calls).to.deep.equal([]);
    });

    it("and nobody but that one and root sees, replaces or ends it", async () => {
      await keeper.mount(requestFor("v1"), {}, 1000);
      expect(keeper.list({ uid: 1001 })).to.deep.equal([]);
      expect(keeper.list({ uid: 1000 })).to.have.lengthOf(1);
      expect(keeper.list({ uid: 0 })).to.have.lengthOf(1);
      for (const refused of [
        await refusal(keeper.unpublish(requestFor("v1"), 1001)),
        await refusal(keeper.mount(requestFor("v1"), { replaces: true }, 1001)),
      ]) {
        expect(refused).to.include("belongs to user 1000");
      }
      expect(await opens(tokenAt("v1"))).to.equal(true);
      expect((await keeper.unpublish(requestFor("v1"), 1000)).ok).to.equal(true);
      await keeper.mount(requestFor("v1"), {}, 1000);
      expect((await keeper.unpublish(requestFor("v1"), 0)).ok).to.equal(true);
    });

    it("and lists when its token was used last", async () => {
      await keeper.mount(requestFor("v1"), { lifetimeMs: 60_000 });
      const [unused] = keeper.list({ uid: 0 });
      expect(unused).to.deep.include({
        connectors: ["default/harbor"],
        origin: { uid: 0, mountedAt: node.time },
        life: { boot: "boot-1", persistent: false, endsAt: node.time + 60_000 },
        lastUsedAt: undefined,
        isUsable: true,
      });
      node.time += 5000;
      await opens(tokenAt("v1"));
      expect(keeper.list({ uid: 0 })[0]?.lastUsedAt).to.equal(node.time);
    });
  });

  it("tells of damaged records, and keeps the other volumes", async () => {
    await keeper.publish(requestFor("v1"));
    await keeper.stop();
    const whole = await readFile(join(folder, "v1.json"), "utf8");
    await writeFile(join(folder, "v2.json"), whole.slice(0, -9), { mode: 0o600 });
    await writeFile(join(folder, "v3.json"), whole, { mode: 0o600 });
    await writeFile(
      join(folder, "v4.json"),
      whole.replace('"harbor"', "7").replaceAll("v1", "v4"),
      { mode: 0o600 },
    );
    keeper = await start();
    for (const name of ["v2", "v3", "v4"]) {
      expect(node.log.count('"error"', "damaged", join(folder, `${name}.json`))).to.equal(1);
    }
    await keeper.tick();
    await eventually(() => node.calls.length === 2);
    expect(node.calls).to.deep.equal(["publish v1", "publish v1"]);
    await keeper.unpublish(requestFor("v2"));
    expect(await records()).to.deep.equal(["v1.json", "v3.json", "v4.json"]);
  });

  it("reads a record as it wrote it, whatever the request holds", async () => {
    const text = fc.string({ unit: "grapheme", maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(
        text,
        fc.json(),
        text,
        fc.boolean(),
        async (target, params, key, readonly) => {
          const attributes = {
            connectors: "harbor",
            "configuration.params": "{}",
            [`csi.storage.k8s.io/${key}`]: params,
          };
          const request = { ...requestFor("v9", attributes), targetPath: `/${target}`, readonly };
          const first = await start();
          await first.publish(request);
          await first.stop();
          const { length } = node.published;
          const second = await start();
          await second.tick();
          await eventually(() => node.published.length === length + 1);
          expect({ ...node.published.at(-1), secrets: {} }).to.deep.equal(request);
          await second.unpublish(request);
          await second.stop();
        },
      ),
      { numRuns: 25 },
    );
  });
});
