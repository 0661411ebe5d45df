import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { openRaw, type RawConnection, statusesIn } from "../../support/raw-request.ts";
import { clientOf } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const strangers = 60;

describe("of requests that come at a time, the proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let proxy: TestProxy;
  /** Who was answered, in order. */
  let answered: string[];

  beforeEach(async () => {
    answered = [];
    proxy = resources.add(
      await startTestProxy({
        observer: {
          requestStarted: () => undefined,
          requestEnded: ({ identity }) => answered.push(identity?.subject ?? "stranger"),
          tokenNeeded: () => undefined,
        },
      }),
    );
    proxy.connect("harbor", "http://127.0.0.1:1");
  });
  afterEach(resources.stop);

  const open = async (): Promise<RawConnection> =>
    resources.add(await openRaw({ port: Number(proxy.http.split(":")[1]) }));
  const ping = (token: string): string =>
    `GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n\r\n`;
  const several = (count: number): Promise<readonly RawConnection[]> =>
    Promise.all(Array.from({ length: count }, open));
  const allAnswered = (connections: readonly RawConnection[], count: number): Promise<unknown> =>
    eventually(
      () => connections.every((one) => statusesIn(one.received()).length === count),
      () => "not all are answered",
    );

  it("answers all, and a client with a token not behind the strangers before it", async () => {
    const { token } = clientOf(proxy, "harbor");
    const many = await several(strangers);
    const client = await open();
    client.send(ping(token));
    await client.waitFor(/HTTP\/1.1 200/);
    answered.length = 0;
    for (const stranger of many) stranger.send(ping("none"));
    client.send(ping(token));
    await allAnswered([client], 2);
    await allAnswered(many, 1);
    expect(answered).to.have.length(strangers + 1);
    expect(answered.indexOf(`subject of ${token}`)).to.be.below(strangers - 10);
  });

  it("answers one of each subject in turn", async () => {
    const [greedy, modest] = [proxy.token("harbor"), proxy.token("harbor")];
    const many = await several(strangers);
    const one = await open();
    for (const connection of many) connection.send(ping(greedy));
    one.send(ping(modest));
    await allAnswered([...many, one], 1);
    answered.length = 0;
    for (const connection of many) connection.send(ping(greedy));
    one.send(ping(modest));
    await allAnswered([...many, one], 2);
    expect(answered).to.have.length(strangers + 1);
    expect(answered.indexOf(`subject of ${modest}`)).to.be.below(strangers - 10);
  });
});
