/** A process that is killed, and the next one on the same state folder. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { volumeIdOf } from "../../src/standalone/volume-records.ts";
import { cleanup } from "../support/cleanup.ts";
import { publishVolume, unpublishVolume } from "../support/csi-calls.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { type CiHost, startCiHost, type Volume } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";
import { type MountEntry, mountsBelow } from "./mount-table.ts";

/** What a process knows of a volume, as it stands in its state folder. */
interface KeptRecord {
  readonly inDoubt: boolean;
  readonly request: { readonly targetPath: string };
}

describe("standalone mode that is killed", function () {
  this.timeout(60_000);
  const resources = cleanup();
  const login = { username: "alice", password: "secret-of-alice" };
  let registry: FakeRegistry;
  let host: CiHost;

  beforeEach(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    addImage(registry.repository("app"), "1");
    host = resources.add(await startCiHost());
    host.keepSecret("the registry's password", login.password);
    await write(registry.url);
    await host.waitForLog("connectors were added, removed or changed", "team-b/hub");
  });
  afterEach(async () => {
    expect(await host.leaks()).to.deep.equal([]);
    await resources.stop();
  });

  const write = (address: string): Promise<void> => {
    const documents = ["team-a/hub", "team-b/hub"].map((ref) =>
      connectorYaml({ ref, address, login }),
    );
    return host.write("all.yaml", documents.join("\n---\n"));
  };
  const pull = async (volume: Volume, ref: string): Promise<number> =>
    (await volume.request("GET", ref, "app/manifests/1")).status;

  async function records(): Promise<readonly KeptRecord[]> {
    const folder = join(host.state, "volumes");
    const names = (await readdir(folder)).filter((name) => name.endsWith(".json"));
    const texts = names.map((name) => readFile(join(folder, name), "utf8").catch(() => undefined));
    // One that has gone in the meantime is not settled, nor read.
    return (await Promise.all(texts)).map((text) =>
      JSON.parse(text ?? '{"inDoubt": true, "request": {}}'),
    );
  }

  it("keeps mounts, files and tokens, and goes on with them", async () => {
    const volumes = await Promise.all([
      host.mount("one", "team-a/hub"),
      host.mount("two", "team-b/hub", "--configuration", "docker-config,containerd"),
      host.mount("three", "team-a/hub,team-b/hub", "--group", "12345"),
      host.mount(
        ...(["four", "team-a/hub", "--configuration", "buildkitd"] as const),
        "--params",
        '{"buildkitd": {"mirror": true}}',
        "--token-expiration",
        "10m",
      ),
    ]);
    const [one, two, three, four] = volumes;
    const gone = await host.mount("gone", "team-a/hub");
    await host.unmount("gone");
    const before = await mountsBelow(host.folder);
    expect(before).to.have.lengthOf(4);

    await host.kill();
    expect(await mountsBelow(host.folder)).to.deep.equal(before);
    for (const volume of volumes) {
      expect(await volume.read("context.token")).to.equal(volume.token);
      expect(await volume.read("ca.crt")).to.match(/^-----BEGIN CERTIFICATE-----/);
    }
    const moved = "http://moved.test:5000"; // while nobody looks
    await write(moved);
    await host.start();
    await eventually(
      async () => (await four.read("buildkitd.toml")).includes("moved.test:5000"),
      () => "the volume was not brought up to date",
    );
    await write(registry.url);
    await eventually(
      async () => (await pull(one, "team-a/hub")) === 200,
      () => "the token of before is not accepted",
    );
    expect(await pull(two, "team-b/hub")).to.equal(200);
    expect(await pull(two, "team-a/hub")).to.equal(403);
    expect(await pull(three, "team-a/hub")).to.equal(200);
    expect(await pull(three, "team-b/hub")).to.equal(200);
    expect(await pull(four, "team-a/hub")).to.equal(200);
    expect(await pull(gone, "team-a/hub")).to.equal(401);
    expect(await mountsBelow(host.folder)).to.deep.equal(before);

    await host.unmount("three");
    expect(await pull(three, "team-a/hub")).to.equal(401);
    await host.kill();
    await host.start();
    expect(await pull(three, "team-a/hub")).to.equal(401);
    expect(await pull(one, "team-a/hub")).to.equal(200);
    const left = before.filter(({ path }) => !path.endsWith("/three"));
    expect(await mountsBelow(host.folder)).to.deep.equal(left);
    await Promise.all(["one", "two", "four"].map(host.unmount));
    expect(await pull(one, "team-a/hub")).to.equal(401);
    expect(await mountsBelow(host.folder)).to.deep.equal([]);
    expect(await records()).to.deep.equal([]);
    expect(host.logged('"level":"error"')).to.deep.equal([]);
  });

  /** Somebody who mounts and unmounts one volume. */
  interface Customer {
    readonly volume: { readonly volumeId: string; readonly targetPath: string };
    /** The last call that was answered. */
    done: "mount" | "unmount";
    /** A call has been made, and no answer has come. */
    waits: boolean;
  }
  const socket = (): string => join(host.state, "csi.sock");
  const attributes = { connectors: "team-a/hub", "configuration.names": "docker-config" };

  async function call(customer: Customer, next: Customer["done"]): Promise<void> {
    const { volume } = customer;
    customer.waits = true;
    if (next === "unmount") await unpublishVolume(socket(), volume);
    else await publishVolume(socket(), { ...volume, namespace: "default", attributes });
    Object.assign(customer, { done: next, waits: false });
  }
  /** So many calls, unless one fails. */
  async function makeCalls(customer: Customer, count: number): Promise<void> {
    for (let made = 0; made < count && !customer.waits; made += 1) {
      const isMounted = customer.done === "mount";
      const next = isMounted && Math.random() < 0.7 ? "unmount" : "mount";
      await call(customer, next).catch(() => {});
      await sleep(Math.random() * 20);
    }
  }
  async function isSettled(): Promise<boolean> {
    const kept = await records();
    const known = kept.map(({ request }) => request.targetPath).toSorted();
    const mounted = (await mountsBelow(host.folder)).map(({ path }) => path).toSorted();
    return kept.every(({ inDoubt }) => !inDoubt) && known.join() === mounted.join();
  }
  /** What was answered holds, and what was not is whole or not there. */
  function expectPromisesKept(
    customers: readonly Customer[],
    before: readonly MountEntry[],
    now: readonly MountEntry[],
  ): void {
    for (const { volume, done, waits } of customers) {
      const at = (mounts: readonly MountEntry[]): readonly MountEntry[] =>
        mounts.filter(({ path }) => path === volume.targetPath);
      if (waits) expect(at(now)).to.have.lengthOf.at.most(1);
      else if (done === "unmount") expect(at(now)).to.deep.equal([]);
      else expect(at(now)).to.have.lengthOf(1).and.deep.equal(at(before));
    }
  }

  it("in the middle of mounts and unmounts leaves none that nobody knows, and one at most", async () => {
    const customers = Array.from({ length: 10 }, (_, index): Customer => {
      const targetPath = join(host.folder, `target-${index}`);
      const volume = { volumeId: volumeIdOf(targetPath), targetPath };
      return { volume, done: "unmount", waits: false };
    });
    const untouched = await host.mount("untouched", "team-a/hub");
    const seen = { answered: 0, cutShort: 0 };
    for (const delay of [0, 30, 100]) {
      const storm = Promise.all(customers.slice(5).map((customer) => makeCalls(customer, 1000)));
      await Promise.all(customers.slice(0, 5).map((customer) => makeCalls(customer, 2)));
      await sleep(delay);
      await host.kill();
      await storm;
      const before = await mountsBelow(host.folder);
      const waiting = customers.filter(({ waits }) => waits).length;
      seen.cutShort += waiting;
      seen.answered += customers.length - waiting;

      await host.start();
      await eventually(isSettled, () => "mounts and records differ", 20_000);
      const now = await mountsBelow(host.folder);
      expectPromisesKept(customers, before, now);
      expect(await pull(untouched, "team-a/hub")).to.equal(200);
      for (const customer of customers) {
        const isMounted = now.some(({ path }) => path === customer.volume.targetPath);
        Object.assign(customer, { done: isMounted ? "mount" : "unmount", waits: false });
      }
    }
    expect(seen.answered, "all were cut short").to.be.above(0);
    expect(seen.cutShort, "none was cut short").to.be.above(0);

    await Promise.all(customers.map((customer) => call(customer, "mount")));
    expect(await mountsBelow(host.folder)).to.have.lengthOf(11);
    await Promise.all(customers.map((customer) => call(customer, "unmount")));
    await host.unmount("untouched");
    expect(await mountsBelow(host.folder)).to.deep.equal([]);
    expect(await records()).to.deep.equal([]);
    expect(await readdir(host.folder)).to.have.members(["boot-id", "connectors", "state"]);
  });
});
