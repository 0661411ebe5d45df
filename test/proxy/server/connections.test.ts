import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { noise } from "../../support/oci-image.ts";
import { openRaw, type RawConnection, statusesIn } from "../../support/raw-request.ts";
import { clientOf, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const stallTimeoutMs = 500;

describe("a client of the proxy that does not wait for its responses", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;
  let shed: string[];
  /** Requests that the registry has not answered yet, and the most that there were at a time. */
  let underWay: number;
  let mostUnderWay: number;
  /** Lets the registry answer. */
  let answer: () => void;

  beforeEach(async () => {
    shed = [];
    underWay = 0;
    mostUnderWay = 0;
    registry = resources.add(await startFakeRegistry());
    proxy = resources.add(
      await startTestProxy({
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
    registry.on("GET tags", async ({ target, send }) => {
      underWay += 1;
      mostUnderWay = Math.max(mostUnderWay, underWay);
      await gate.promise;
      await sleep(1); // time enough for a second one
      underWay -= 1;
      return send(200, {}, Buffer.from(`<${target.repository}>`));
    });
  });
  afterEach(resources.stop);

  const open = async (): Promise<RawConnection> =>
    resources.add(await openRaw({ port: Number(proxy.http.split(":")[1]) }));
  const get = (path: string, ...lines: readonly string[]): string =>
    [
      `GET ${client.base}${path} HTTP/1.1`,
      "Host: x",
      `Authorization: ${client.authorization}`,
      ...lines,
      "",
      "",
    ].join("\r\n");
  const list = (index: number): string => get(`r${index}/tags/list`);
  const numbers = (count: number): readonly number[] => [...Array(count).keys()];
  const answered = (text: string): readonly number[] =>
    [...text.matchAll(/<r(\d+)>/g)].map(([, index]) => Number(index));

  for (const [form, pieces] of [
    ["in one piece", 1],
    ["one by one", 17],
  ] as const) {
    it(`is answered in order, one request at a time (${form})`, async () => {
      const connection = await open();
      const requests = numbers(17).map(list);
      if (pieces === 1) connection.send(requests.join(""));
      for (const request of pieces === 1 ? [] : requests) {
        connection.send(request);
        await sleep(2);
      }
      await eventually(
        () => underWay === 1,
        () => `${underWay} are under way`,
      );
      await sleep(50);
      answer();
      await connection.waitFor(/<r16>/);
      expect(answered(connection.received())).to.deep.equal(numbers(17));
      expect(mostUnderWay).to.equal(1);
      connection.send(list(99));
      await connection.waitFor(/<r99>/);
    });
  }

  it("is answered in order where a body is in between", async () => {
    const connection = await open();
    const start = `POST ${client.base}app/blobs/uploads/ HTTP/1.1`;
    const push = [start, "Host: x", `Authorization: ${client.authorization}`, "Content-Length: 0"];
    connection.send(`${list(0)}${push.join("\r\n")}\r\n\r\n${list(1)}`);
    answer();
    const text = await connection.waitFor(/<r1>/);
    expect(statusesIn(text)).to.deep.equal([200, 202, 200]);
  });

  it("is not read from, as long as its requests wait", async () => {
    const connection = await open();
    connection.send(list(0) + list(1));
    await eventually(
      () => underWay === 1,
      () => "nothing has arrived",
    );
    await sleep(50);
    // Far more than the proxy takes at once, and than it lets wait.
    const many = 20_000;
    for (const index of numbers(many)) connection.send(get("", `X-Number: ${index}`));
    await sleep(200);
    expect(await clientOf(proxy, "harbor")("GET", "/v2/")).to.have.property("status", 200);
    expect(shed).to.deep.equal([]);
    expect(statusesIn(connection.received())).to.deep.equal([]);
  });

  it("is disconnected where more come at once than a client needs", async () => {
    const connection = await open();
    connection.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4_000));
    await connection.closed;
    expect(shed).to.deep.equal(["pipelining"]);
    expect(statusesIn(connection.received()).length).to.be.below(100);
    answer();
    expect((await client("GET", "r1/tags/list")).status).to.equal(200);
  });

  it("is read from again once nothing waits", async () => {
    const connection = await open();
    answer();
    for (const round of [0, 1, 2]) {
      connection.send(list(2 * round) + list(2 * round + 1));
      await connection.waitFor(new RegExp(`<r${2 * round + 1}>`));
    }
    expect(answered(connection.received())).to.deep.equal(numbers(6));
  });

  it("gets no refusal of what is no request within the body before it", async () => {
    const blob = noise("blob", 20_000_000);
    registry.on("GET manifest", ({ send }) => send(200, {}, blob));
    const socket = connect(Number(proxy.http.split(":")[1]), "127.0.0.1");
    resources.defer(() => socket.destroy());
    let text = "";
    socket
      .on("error", () => undefined)
      .on("data", (chunk: Buffer) => {
        text += chunk.toString("latin1");
      });
    socket.write(get("app/manifests/large"));
    await once(socket, "data");
    socket.pause();
    socket.write("no request\r\n\r\n");
    await sleep(100);
    await once(socket.resume(), "close");
    expect(statusesIn(text)).to.deep.equal([200]);
    expect(text.length).to.be.below(blob.length);
  });
});

describe("a client of the proxy that is slow to read its answer", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const blob = noise("blob", 50_000_000); // more than the kernel buffers on two connections
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let registrySide: Socket | undefined;

  before(async () => {
    registry = resources.add(await startFakeRegistry());
    proxy = resources.add(await startTestProxy({ stallTimeoutMs }));
    proxy.connect("harbor", registry.url);
    registry.on("GET manifest", ({ request, response, send }) => {
      registrySide = response.socket ?? undefined;
      if (request.headers["x-request-id"] === undefined) return send(200, {}, blob);
      setTimeout(() => send(200, {}, Buffer.from("late")), stallTimeoutMs * 3);
    });
  });
  after(resources.stop);

  const ask = async (...lines: readonly string[]): Promise<Socket> => {
    const { base, authorization } = clientOf(proxy, "harbor");
    const socket = connect(Number(proxy.http.split(":")[1]), "127.0.0.1");
    resources.defer(() => socket.destroy());
    socket.on("error", () => {});
    const head = [
      `GET ${base}app/manifests/large HTTP/1.1`,
      "Host: x",
      `Authorization: ${authorization}`,
      "Connection: close",
      ...lines,
      "",
      "",
    ];
    socket.pause().write(head.join("\r\n"));
    await once(socket, "connect");
    return socket;
  };

  it("is ended where it stops, and so is the registry's answer", async () => {
    await ask();
    await eventually(
      () => registrySide?.destroyed,
      () => "the registry's connection is still open",
    );
  });

  it("is waited for while it goes on", async () => {
    const socket = await ask();
    let received = 0;
    // A tenth of the blob, and rest, which is shorter than the limit on any machine that tests pass on.
    socket.on("data", (chunk: Buffer) => {
      const before = received;
      received += chunk.length;
      const isTenth = Math.floor(before / 5_000_000) !== Math.floor(received / 5_000_000);
      if (isTenth) setTimeout(() => socket.resume(), stallTimeoutMs / 4);
      if (isTenth) socket.pause();
    });
    socket.resume();
    await once(socket, "close");
    expect(received).to.be.above(blob.length);
  });

  it("is not at fault where the registry is slower", async () => {
    const socket = await ask("X-Request-Id: slow");
    let text = "";
    for await (const chunk of socket.resume()) text += chunk;
    expect(text).to.match(/^HTTP\/1.1 200 [\s\S]*late$/);
  });
});
