/** Many calls at once, readers in between, and drivers that are killed. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { credentials, type ServiceError, status } from "@grpc/grpc-js";
import { expect } from "chai";
import fc from "fast-check";
import { configurationNames } from "../../src/connector/configuration-params.ts";
import type { NodeClient } from "../../src/csi/generated/csi/v1/Node.ts";
import { csi } from "../../src/csi/proto.ts";
import {
  type Driver,
  invoke,
  makeFolder,
  mountIdsAt,
  podInfo,
  publishRequest,
  removeFolder,
  requireMounts,
  startDriver,
  tokenMark,
} from "./csi-driver.ts";

const script = (name: string): string => new URL(name, import.meta.url).pathname;

/** A Node process that says when it is ready; what else it says comes from `rest`. */
async function startProcess(
  ...args: string[]
): Promise<{ child: ChildProcess; rest: () => string }> {
  const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] });
  let said = "";
  child.stdout?.setEncoding("utf8");
  child.stdout?.on("data", (text) => {
    said += text;
  });
  while (!said.includes("ready\n")) {
    if (child.exitCode !== null) throw new Error(`${args.join(" ")} ended with ${child.exitCode}`);
    await sleep(5);
  }
  return { child, rest: () => said.replace("ready\n", "") };
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await once(child, "exit");
}

/** Looks at the mounts of a path all the while, and tells the highest number there was. */
async function maxMounts(path: string, during: () => Promise<void>): Promise<number> {
  let goesOn = true;
  const watch = async (): Promise<number> => {
    let max = 0;
    while (goesOn) max = Math.max(max, (await mountIdsAt(path)).length);
    return max;
  };
  const stop = (): void => {
    goesOn = false;
  };
  const [max] = await Promise.all([watch(), during().finally(stop)]);
  return max;
}

/** Runs a number of tasks, some at a time. */
async function inParallel(
  count: number,
  atATime: number,
  task: (index: number) => Promise<unknown>,
): Promise<void> {
  const indices = Array.from({ length: count }, (_, index) => index).values();
  await Promise.all(
    Array.from({ length: atATime }, async () => {
      for (const index of indices) await task(index);
    }),
  );
}

const withDockerConfig = { connectors: "harbor", "configuration.names": "docker-config" };

describe("the CSI volume node under many calls", function () {
  this.timeout(60_000);
  let driver: Driver;
  let target: string;

  before(requireMounts);
  beforeEach(async () => {
    driver = await startDriver();
    target = join(driver.folder, "mount");
  });
  afterEach(() => driver.end());

  it("mounts once, however often and however concurrently it is asked", async () => {
    const max = await maxMounts(target, () =>
      inParallel(200, 20, (index) =>
        driver.publish(publishRequest(target, { token: `${tokenMark}-${index % 3}` })),
      ),
    );
    expect(max).to.equal(1);
    expect(await mountIdsAt(target)).to.have.lengthOf(1);
    await driver.unpublish(target);
    expect(await mountIdsAt(target)).to.deep.equal([]);
    expect(await readdir(driver.folder)).to.deep.equal(["csi.sock"]);
  });

  it("takes publish and unpublish one after the other", async () => {
    const max = await maxMounts(target, () =>
      inParallel(80, 20, (index) =>
        index % 2 === 0 ? driver.publish(publishRequest(target)) : driver.unpublish(target),
      ),
    );
    expect(max).to.equal(1);
    await driver.unpublish(target);
    expect(await mountIdsAt(target)).to.deep.equal([]);
  });

  /** Publishes, gives up, and waits until the driver has given up a call that was not its turn. */
  const publishAndGiveUp = async (calls: number): Promise<void> => {
    const giveUps = Array.from({ length: calls }, () => {
      const { promise, resolve } = Promise.withResolvers<ServiceError | null>();
      const call = driver.client.nodePublishVolume(publishRequest(target), resolve);
      return { call, promise };
    });
    await roundTrip(); // now all of them have arrived
    for (const { call, promise } of giveUps) {
      call.cancel();
      expect((await promise)?.code).to.equal(status.CANCELLED);
    }
    while (driver.logged("NodePublishVolume failed").length === 0) await sleep(5);
    const [line] = driver.logged("NodePublishVolume failed");
    expect(line?.reason).to.equal("CANCELLED: the caller cancelled the call");
    await roundTrip(); // and now all that they had to say
  };
  /** What a connection brings comes in the order in which it was sent. */
  const roundTrip = (): Promise<unknown> => invoke((done) => driver.client.nodeGetInfo({}, done));
  const holdPublishes = (): (() => void) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    driver.world.mayUse = async () => {
      await promise;
      return { ok: true, value: undefined };
    };
    return resolve;
  };

  it("lets a call go that is cancelled while it waits for its turn", async () => {
    const goOn = holdPublishes();
    const first = driver.publish(publishRequest(target));
    await publishAndGiveUp(1);
    goOn();
    await first;
    expect(driver.logged("volume published")).to.have.lengthOf(1);
  });

  it("mounts nothing any more for a caller that gave up", async () => {
    const goOn = holdPublishes();
    await publishAndGiveUp(2);
    goOn();
    await driver.unpublish(target);
    expect(driver.logged("volume published")).to.deep.equal([]);
    expect(await readdir(driver.folder)).to.deep.equal(["csi.sock"]);
  });

  it("publishes 110 volumes at once, as many as a node has Pods", async () => {
    const targets = Array.from({ length: 110 }, (_, index) => join(driver.folder, `${index}`));
    await Promise.all(targets.map((path) => driver.publish(publishRequest(path))));
    await Promise.all(targets.map((path) => driver.publish(publishRequest(path))));
    for (const path of targets) expect(await mountIdsAt(path)).to.have.lengthOf(1);
    await Promise.all(targets.map((path) => driver.unpublish(path)));
    expect(await readdir(driver.folder)).to.deep.equal(["csi.sock"]);
  });

  it("never shows a reader files of two generations, nor lets one be missing", async () => {
    const publish = (index: number) =>
      driver.publish(
        publishRequest(target, { token: `${tokenMark}-${index}`, attributes: withDockerConfig }),
      );
    await publish(0);
    const { child, rest } = await startProcess(script("volume-reader.ts"), target);
    try {
      for (let index = 1; index <= 200; index++) await publish(index);
      child.stdin?.end();
      await once(child, "close");
    } finally {
      await kill(child);
    }
    const { mixed, missing, generations } = JSON.parse(rest());
    expect({ mixed, missing }).to.deep.equal({ mixed: 0, missing: 0 });
    expect(generations).to.be.above(10);
  });

  it("survives any attributes, and writes nowhere but into the volume", async () => {
    const names = ["connectors", "connector.name", "configuration.names", "configuration.params"];
    const part = fc.constantFrom(
      "harbor",
      "team-b/ghcr",
      "..",
      "/",
      ",",
      "!",
      "!..data",
      "!../x",
      "!/etc",
      "{}",
      "\0",
      '{"buildkitd":{"mountPath":"/../x"}}',
      "__proto__",
      "..volume.json",
      "!certs.d",
      ...configurationNames.keys(),
    );
    const value = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.array(part, { maxLength: 4 }).map((parts) => parts.join(",")),
    );
    const name = fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...names) }, fc.string());
    const attributes = fc
      .tuple(fc.dictionary(name, value, { maxKeys: 4 }), fc.boolean())
      .map(([others, isPlain]) => (isPlain ? { ...others, connectors: "harbor" } : others));
    const expectNothingOutside = async () => {
      for (const link of await readdir(target)) {
        if (link.startsWith("..") && link !== "..data") continue;
        expect(await readlink(join(target, link))).to.match(/^\.\.[^/]+(\/[^/]+)?$/);
      }
      expect((await readdir(driver.folder)).toSorted()).to.deep.equal(["csi.sock", "mount"]);
      await driver.unpublish(target);
    };
    const codes = new Set<string>();
    await fc.assert(
      fc.asyncProperty(attributes, async (given) => {
        const request = publishRequest(target, { volumeContext: { ...given, ...podInfo } });
        const code = await driver.publish(request).then(
          () => "OK",
          async () => (await driver.failure(driver.publish(request))).code,
        );
        codes.add(code);
        if (code === "OK") await expectNothingOutside();
        expect(await readdir(driver.folder)).to.deep.equal(["csi.sock"]);
      }),
      { numRuns: 60 },
    );
    expect([...codes].toSorted()).to.deep.equal(["OK", "UNAVAILABLE"]);
  });
});

describe("the CSI volume node that is killed", function () {
  this.timeout(60_000);
  let folder: string;
  let child: ChildProcess | undefined;
  let client: NodeClient;

  before(requireMounts);
  beforeEach(async () => {
    folder = await makeFolder();
    await startAgain();
  });
  afterEach(async () => {
    client.close();
    if (child) await kill(child);
    await removeFolder(folder);
  });

  async function startAgain(): Promise<void> {
    const socketPath = join(folder, "csi.sock");
    ({ child } = await startProcess(script("driver-process.ts"), socketPath));
    client = new csi.Node(`unix:${socketPath}`, credentials.createInsecure());
  }

  const publish = (path: string) =>
    invoke((done) =>
      client.nodePublishVolume(
        publishRequest(path, { token: `${tokenMark}-${Math.random()}` }),
        done,
      ),
    );
  const unpublish = (targetPath: string) =>
    invoke((done) =>
      client.nodeUnpublishVolume({ volumeId: `csi-of-${targetPath}`, targetPath }, done),
    );

  it("leaves each volume mounted once at most, and published ones as they were", async () => {
    const stable = join(folder, "stable");
    const target = join(folder, "storm");
    await publish(stable);
    const mountId = await mountIdsAt(stable);
    for (const delay of [0, 3, 7, 15, 30, 60]) {
      const storm = inParallel(200, 20, (index) =>
        index % 4 === 0 ? unpublish(target) : Promise.all([publish(target), publish(stable)]),
      );
      const calls = storm.catch((error: Error) => error);
      await sleep(delay);
      if (child) await kill(child);
      client.close();
      await calls;
      expect(await readFile(join(stable, "context.token"), "utf8")).to.include(tokenMark);

      await startAgain();
      await publish(target);
      expect(await mountIdsAt(target)).to.have.lengthOf(1);
      await unpublish(target);
      expect(await mountIdsAt(target)).to.deep.equal([]);
      await publish(stable);
      expect(await mountIdsAt(stable)).to.deep.equal(mountId);
    }
    await unpublish(stable);
    expect(await readdir(folder)).to.deep.equal(["csi.sock"]);
  });
});
