import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { expect } from "chai";
import type { ShedReason } from "../../../src/proxy/server/connection-limits.ts";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { openRaw, type RawConnection, statusesIn } from "../../support/raw-request.ts";
import { clientOf, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const maxPerAddress = 6;
const maxInAll = 9;
const maxHandshakesPerAddress = 4;
const maxHeadBytes = 60_000;

describe("at the bound of connections, the proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;
  let shed: ShedReason[];
  /** Lets the registry answer. */
  let answer: () => void;

  beforeEach(async () => {
    shed = [];
    registry = resources.add(await startFakeRegistry());
    registry.repository("app").tags.set("1", "x");
    proxy = resources.add(
      await startTestProxy({
        connectionLimits: { maxPerAddress, maxInAll, maxHandshakesPerAddress, maxHeadBytes },
        observer: {
          requestStarted: () => undefined,
          requestEnded: () => undefined,
          tokenNeeded: () => undefined,
          connectionShed: (reason) => shed.push(reason),
        },
      }),
    );
    proxy.connect("harbor", registry.url);
    client = clientOf(proxy, "harbor");
    const gate = Promise.withResolvers<void>();
    answer = gate.resolve;
    registry.on("GET referrers", async ({ fail }) => {
      await gate.promise;
      return fail(404, "NAME_UNKNOWN");
    });
  });
  afterEach(resources.stop);

  const port = (scheme: "http" | "https" = "http"): number => Number(proxy[scheme].split(":")[1]);
  const open = async (scheme: "http" | "https" = "http"): Promise<RawConnection> => {
    const ca = proxy.surroundings.authority.certificate;
    return resources.add(await openRaw({ port: port(scheme), ...(scheme === "https" && { ca }) }));
  };
  const several = async (
    count: number,
    make: () => Promise<RawConnection>,
  ): Promise<readonly RawConnection[]> => {
    const made: RawConnection[] = [];
    while (made.length < count) made.push(await make());
    return made;
  };
  const get = (path: string): string =>
    `GET ${client.base}${path} HTTP/1.1\r\nHost: x\r\nAuthorization: ${client.authorization}\r\n\r\n`;
  const isGood = async (connection: RawConnection): Promise<void> => {
    const before = statusesIn(connection.received()).length;
    connection.send(get("app/tags/list"));
    await eventually(
      () => statusesIn(connection.received()).length > before,
      () => "nothing has come",
    );
    expect(statusesIn(connection.received()).at(-1)).to.equal(200);
  };
  /** A connection that had a token, and is idle. */
  const idle = async (scheme: "http" | "https" = "http"): Promise<RawConnection> => {
    const connection = await open(scheme);
    await isGood(connection);
    return connection;
  };
  /** A connection with a token on which a request is under way. */
  const busy = async (): Promise<RawConnection> => {
    const connection = await open();
    const before = registry.requests.length;
    connection.send(get(`app/referrers/sha256:${"0".repeat(64)}`));
    await eventually(
      () => registry.requests.length > before,
      () => "nothing has arrived",
    );
    return connection;
  };
  /** From another address than all the others. */
  const fromElsewhere = async (): Promise<Socket> => {
    const socket = connect({ port: port(), host: "127.0.0.1", localAddress: "127.0.0.2" });
    resources.defer(() => socket.destroy());
    socket.on("error", () => undefined);
    await once(socket, "connect");
    return socket;
  };
  const hasEnded = (connection: RawConnection): Promise<boolean> =>
    Promise.race([
      connection.closed.then(() => true),
      new Promise<boolean>((resolve) => setTimeout(resolve, 100, false)),
    ]);

  for (const scheme of ["http", "https"] as const) {
    it(`of heads that are not whole, ends the connection with the longest (${scheme})`, async () => {
      const used = await idle(scheme);
      const [short, long] = [await open(scheme), await open(scheme)];
      short.send(`${get("app/tags/list").slice(0, -2)}X: ${"a".repeat(20_000)}`);
      long.send(`GET /v2/ HTTP/1.1\r\nX: ${"a".repeat(50_000)}`);
      await long.closed;
      expect(shed).to.deep.equal(["heads"]);
      short.send("\r\n\r\n");
      await short.waitFor(/^HTTP\/1.1 200/);
      await isGood(used);
    });

    it(`of an address, ends its oldest connection without an identity for the new one (${scheme})`, async () => {
      const used = await idle(scheme);
      const silent = await several(maxPerAddress - 1, () => open(scheme));
      const newcomer = await open(scheme);
      await silent[0]?.closed;
      await isGood(newcomer);
      expect(await hasEnded(silent[1] ?? newcomer)).to.equal(false);
      await isGood(used);
      expect(shed).to.deep.equal(["connections"]);
    });
  }

  it("has nobody with a token refused by any number of silent ones", async () => {
    await several(3 * maxPerAddress, open);
    for (let count = 0; count < 5; count += 1) {
      expect((await client("GET", "app/tags/list")).status).to.equal(200);
      await open();
    }
  });

  it("ends the connection that has been idle longest, where all have an identity", async () => {
    const [first, second, ...others] = await several(maxPerAddress, () => idle());
    if (first === undefined || second === undefined) throw new Error("none");
    await isGood(first);
    const newcomer = await idle();
    await second.closed;
    for (const connection of [first, newcomer, ...others]) await isGood(connection);
  });

  it("ends a connection whose token was refused before one whose token was not", async () => {
    const used = await idle();
    const refused = await open();
    refused.send("GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer none\r\n\r\n");
    await refused.waitFor(/401/);
    await several(maxPerAddress - 2, busy);
    await open();
    await refused.closed;
    await isGood(used);
    answer();
  });

  it("refuses the new one where something is under way on all others for clients with tokens", async () => {
    const connections = await several(maxPerAddress, busy);
    const refused = await open();
    await refused.closed;
    expect(statusesIn(connections.map((one) => one.received()).join(""))).to.deep.equal([]);
    answer();
    for (const connection of connections) await connection.waitFor(/HTTP\/1.1 404/);
    await isGood(await open());
  });

  it("of all addresses, ends one of the address that has most", async () => {
    const silent = await several(maxPerAddress, open);
    const elsewhere: Socket[] = [];
    while (elsewhere.length < maxInAll - maxPerAddress) elsewhere.push(await fromElsewhere());
    elsewhere.push(await fromElsewhere());
    await silent[0]?.closed;
    expect(elsewhere.map(({ destroyed }) => destroyed)).to.not.include(true);
    expect(await hasEnded(silent[1] ?? (await open()))).to.equal(false);
  });

  it("of handshakes of an address, ends the oldest", async () => {
    const ended: number[] = [];
    for (let index = 0; index <= maxHandshakesPerAddress; index += 1) {
      const socket = connect(port("https"), "127.0.0.1");
      resources.defer(() => socket.destroy());
      socket.on("error", () => undefined).once("close", () => ended.push(index));
      socket.resume();
      await once(socket, "connect");
    }
    await eventually(
      () => ended.length > 0,
      () => "all are still open",
    );
    expect(ended).to.deep.equal([0]);
    expect(shed).to.deep.equal(["handshakes"]);
    const secure = await idle("https");
    await isGood(secure);
  });

  it("counts no connection that has ended", async () => {
    for (let round = 0; round < 3; round += 1) {
      const connections = await several(maxPerAddress, round === 1 ? () => idle("https") : open);
      for (const connection of connections) connection.stop();
      for (const connection of connections) await connection.closed;
      await eventually(
        async () => (await client("GET", "app/tags/list")).status === 200,
        () => "refused",
      );
    }
    expect(shed.length).to.be.below(maxPerAddress);
  });

  it("speaks TLS 1.2 with authenticated encryption alone, with and without a name", async () => {
    const handshake = async (ciphers: string, servername: string): Promise<string | undefined> => {
      const ca = proxy.surroundings.authority.certificate;
      const socket = connectTls({
        port: port("https"),
        host: "127.0.0.1",
        ca,
        maxVersion: "TLSv1.2",
        ciphers,
        ...(servername !== "" && { servername }),
      });
      resources.defer(() => socket.destroy());
      const done = await once(socket, "secureConnect").then(
        () => socket.getCipher().name,
        () => undefined,
      );
      socket.destroy();
      return done;
    };
    for (const name of ["", "localhost"]) {
      for (const old of ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA"]) {
        expect(await handshake(old, name), `${old} ${name}`).to.equal(undefined);
      }
      for (const good of ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"]) {
        expect(await handshake(good, name), `${good} ${name}`).to.equal(good);
      }
    }
  });
});
