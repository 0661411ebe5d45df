import { expect } from "chai";
import type { ShedReason } from "../../../src/proxy/server/connection-limits.ts";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { openRaw, type RawConnection, statusesIn } from "../../support/raw-request.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

/** So many bodies the proxy reads on at a time, docs/robustness.md says. */
const maxBodies = 128;
/** More than Node reads of a body that nobody reads. */
const sent = Buffer.alloc(256 * 1024, " ");
const bodyBytes = 1024 * 1024;

describe("of bodies that are refused, the proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let proxy: TestProxy;
  let shed: ShedReason[];

  beforeEach(async () => {
    shed = [];
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
    proxy.connect("harbor", "http://127.0.0.1:1");
  });
  afterEach(resources.stop);

  /** A push that is refused in the middle of its body. */
  const beginPush = async (token?: string): Promise<RawConnection> => {
    const connection = resources.add(await openRaw({ port: Number(proxy.http.split(":")[1]) }));
    const path = `/v2/namespaces/team-a/connectors/${token === undefined ? "harbor" : "none"}`;
    const head = [
      `PUT ${path}/app/manifests/1 HTTP/1.1`,
      "Host: x",
      `Content-Length: ${bodyBytes}`,
      ...(token === undefined ? [] : [`Authorization: Bearer ${token}`]),
    ];
    connection.send(`${head.join("\r\n")}\r\n\r\n`);
    connection.send(sent);
    await eventually(
      () => statusesIn(connection.received()).length > 0,
      () => "there is no response",
    );
    return connection;
  };

  it("reads on the rest, so that the connection can be used again", async () => {
    const connection = await beginPush();
    connection.send(Buffer.alloc(bodyBytes - sent.length, " "));
    connection.send("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n");
    await eventually(
      () => statusesIn(connection.received()).length === 2,
      () => "there is no second response",
    );
    expect(statusesIn(connection.received())).to.deep.equal([401, 401]);
    expect(shed).to.deep.equal([]);
  });

  it(`reads on ${maxBodies}, and ends the oldest of the sender with the most for a further one`, async () => {
    const neighbour = await beginPush(proxy.token("harbor"));
    const strangers: RawConnection[] = [];
    while (strangers.length < maxBodies + 2) strangers.push(await beginPush());
    await Promise.all(strangers.slice(0, 3).map(({ closed }) => closed));
    expect(shed).to.deep.equal(["bodies", "bodies", "bodies"]);
    for (const connection of [neighbour, strangers[3], strangers.at(-1)]) {
      connection?.send(Buffer.alloc(bodyBytes - sent.length, " "));
      connection?.send("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n");
      await eventually(
        () => statusesIn(connection?.received() ?? "").length === 2,
        () => "a connection that was to stay has no second response",
      );
    }
  });
});
