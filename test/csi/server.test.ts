import { mkdir, readdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { createConnection, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { credentials, status } from "@grpc/grpc-js";
import { expect } from "chai";
import type { IdentityClient } from "../../src/csi/generated/csi/v1/Identity.ts";
import type { NodeClient } from "../../src/csi/generated/csi/v1/Node.ts";
import { csi } from "../../src/csi/proto.ts";
import { serveCsi } from "../../src/csi/server.ts";
import type { SocketServer } from "../../src/csi/socket-server.ts";
import type { VolumeNode } from "../../src/csi/volume-node.ts";
import { eventually } from "../support/eventually.ts";
import { invoke, makeFolder, removeFolder } from "./csi-driver.ts";

describe("CSI server", function () {
  this.timeout(20_000);
  let folder: string;
  let socketPath: string;
  const running = new Set<SocketServer>();
  const clients = new Set<{ close(): void }>();

  beforeEach(async () => {
    folder = await makeFolder();
    socketPath = join(folder, "csi.sock");
  });
  afterEach(async () => {
    for (const client of clients) client.close();
    await Promise.all([...running].map((server) => server.stop()));
    clients.clear();
    running.clear();
    await removeFolder(folder);
  });

  const idle: VolumeNode = {
    publish: async () => undefined,
    unpublish: async () => undefined,
    stats: () => Promise.reject(new Error("none")),
  };
  const serve = async (
    changes: Partial<Parameters<typeof serveCsi>[0]> = {},
  ): Promise<SocketServer> => {
    const server = await serveCsi({
      socketPath,
      node: idle,
      nodeId: "node-1",
      version: "1.2.3",
      isReady: () => true,
      graceMs: 2_000,
      log: () => undefined,
      ...changes,
    });
    running.add(server);
    return server;
  };
  const identity = (path = socketPath): IdentityClient => {
    const client = new csi.Identity(`unix:${path}`, credentials.createInsecure());
    clients.add(client);
    return client;
  };
  const node = (): NodeClient => {
    const client = new csi.Node(`unix:${socketPath}`, credentials.createInsecure());
    clients.add(client);
    return client;
  };
  const versionAt = async () =>
    (await invoke<{ vendorVersion: string }>((done) => identity().getPluginInfo({}, done)))
      .vendorVersion;
  const publish = () =>
    invoke((done) => node().nodePublishVolume({ volumeId: "v", targetPath: "/t" }, done)).then(
      () => "OK",
      (error) => status[error.code],
    );

  describe("tells the kubelet", () => {
    it("who it is", async () => {
      await serve();
      const info = await invoke((done) => identity().getPluginInfo({}, done));
      expect(info).to.deep.include({ name: "connectors-csi", vendorVersion: "1.2.3" });
      const node1 = await invoke<{ nodeId: string }>((done) => node().nodeGetInfo({}, done));
      expect(node1.nodeId).to.equal("node-1");
    });

    it("what it can do, and nothing of a controller", async () => {
      await serve();
      const plugin = await invoke((done) => identity().getPluginCapabilities({}, done));
      expect(plugin).to.deep.equal({ capabilities: [] });
      const { capabilities } = await invoke<{ capabilities: { rpc?: { type: string } | null }[] }>(
        (done) => node().nodeGetCapabilities({}, done),
      );
      expect(capabilities.map(({ rpc }) => rpc?.type)).to.deep.equal([
        "VOLUME_MOUNT_GROUP",
        "GET_VOLUME_STATS",
        "VOLUME_CONDITION",
      ]);
    });

    it("whether it is ready", async () => {
      let isReady = false;
      await serve({ isReady: () => isReady });
      const probe = () => invoke((done) => identity().probe({}, done));
      expect(await probe()).to.deep.equal({ ready: { value: false } });
      isReady = true;
      expect(await probe()).to.deep.equal({ ready: { value: true } });
    });

    it("UNIMPLEMENTED for what it leaves out", async () => {
      await serve();
      const call = invoke((done) => node().nodeStageVolume({}, done));
      expect(await call.catch((error) => error.code)).to.equal(status.UNIMPLEMENTED);
    });
  });

  it("lets only its own user connect", async () => {
    const umask = process.umask(0);
    try {
      await serve();
    } finally {
      process.umask(umask);
    }
    expect((await stat(socketPath)).mode & 0o777).to.equal(0o600);
    expect(await readdir(folder)).to.deep.equal(["csi.sock"]);
  });

  it("replaces a socket that nobody listens at", async () => {
    const stale = createServer();
    await new Promise<void>((resolve) => stale.listen(join(folder, "other.sock"), resolve));
    await rename(join(folder, "other.sock"), socketPath);
    await new Promise((resolve) => stale.close(resolve));
    await serve();
    expect(await versionAt()).to.equal("1.2.3");
  });

  it("takes the place of a server that runs, and keeps it when that one stops", async () => {
    const older = await serve({ version: "1" });
    await serve({ version: "2" });
    expect(await versionAt()).to.equal("2");
    await older.stop();
    expect(await versionAt()).to.equal("2");
  });

  it("comes back when the server that took its place stops", async () => {
    const lines: string[] = [];
    await serve({ version: "1", log: (_level, message) => lines.push(message) });
    const newer = await serve({ version: "2" });
    await sleep(1_500); // it looks after its socket every second, and leaves that of one that runs
    expect(await versionAt()).to.equal("2");
    await newer.stop();
    await eventually(
      async () => (await versionAt().catch(() => "none")) === "1",
      () => `nobody is there: ${lines}`,
      10_000,
    );
    expect(lines).to.deep.equal([
      "nobody listened on the socket any more, and it was placed again",
    ]);
  });

  it("comes back when the server that took its place is killed, and its socket is left", async () => {
    await serve({ version: "1" });
    const newer = createServer();
    const other = join(folder, "other.sock");
    await new Promise<void>((resolve) => newer.listen(other, resolve));
    await rename(other, socketPath);
    await new Promise((resolve) => newer.close(resolve));
    await eventually(
      async () => (await versionAt().catch(() => "none")) === "1",
      () => "nobody is there",
      10_000,
    );
  });

  it("says once that its folder is gone, and comes back with it", async () => {
    const lines: string[] = [];
    await serve({ version: "1", log: (_level, message) => lines.push(message) });
    await removeFolder(folder);
    await sleep(2_500);
    expect(lines).to.deep.equal(["the socket can't be placed again"]);
    await mkdir(folder);
    await eventually(
      async () => (await versionAt().catch(() => "none")) === "1",
      () => "nobody is there",
      10_000,
    );
  });

  it("removes its socket when it stops", async () => {
    const server = await serve();
    await server.stop();
    expect(await readdir(folder)).to.deep.equal([]);
  });

  it("can stop where the socket is gone already", async () => {
    const server = await serve();
    await removeFolder(folder);
    await server.stop();
  });

  it("leaves what is no socket", async () => {
    await writeFile(socketPath, "mine");
    const error = await serve().catch((reason) => reason);
    expect(error.message).to.include(socketPath).and.include("not a socket");
    expect(await readFile(socketPath, "utf8")).to.equal("mine");
  });

  it("wants the folder to be there", async () => {
    const error = await serve({ socketPath: join(folder, "a", "csi.sock") }).catch((e) => e);
    expect(error.message).to.include("check that its folder exists");
  });

  it("wants a path that a socket can have, and leaves nothing behind", async () => {
    const long = join(folder, "x".repeat(100));
    await mkdir(long);
    const error = await serve({ socketPath: join(long, "csi.sock") }).catch((e) => e);
    expect(error.message).to.include("wanted 107 at most");
    expect(await readdir(long)).to.deep.equal([]);
  });

  it("waits for calls in flight when it stops, and takes no new ones", async () => {
    const begun = Promise.withResolvers<void>();
    const { promise, resolve } = Promise.withResolvers<void>();
    const server = await serve({
      node: {
        ...idle,
        publish: () => {
          begun.resolve();
          return promise;
        },
      },
    });
    const call = publish();
    await begun.promise;
    const stopped = server.stop();
    while ((await readdir(folder)).length > 0) await sleep(1);
    expect(await publish()).to.equal("UNAVAILABLE");
    resolve();
    expect(await call).to.equal("OK");
    await stopped;
  });

  it("ends calls that take longer than the grace period, and tells their methods", async () => {
    const begun = Promise.withResolvers<void>();
    const aborted = Promise.withResolvers<void>();
    const server = await serve({
      graceMs: 20,
      node: {
        ...idle,
        publish: (_request, signal) => {
          begun.resolve();
          signal?.addEventListener("abort", () => aborted.resolve());
          return new Promise(() => undefined);
        },
      },
    });
    const call = publish();
    await begun.promise;
    await server.stop();
    await aborted.promise;
    expect(await call).not.to.equal("OK");
  });

  it("is not kept from stopping by a connection that says nothing", async () => {
    const server = await serve({ graceMs: 20 });
    const socket = createConnection(socketPath);
    await new Promise((resolve) => socket.once("connect", resolve));
    const closed = new Promise((resolve) => socket.once("close", resolve));
    socket.resume();
    await server.stop();
    await closed;
  });
});
