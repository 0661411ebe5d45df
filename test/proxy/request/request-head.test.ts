import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { openRaw, rawRequest, statusesIn } from "../../support/raw-request.ts";
import { clientOf, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

describe("the head of a request to the proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;

  before(async () => {
    registry = resources.add(await startFakeRegistry());
    registry.repository("app").tags.set("1", "x");
    proxy = resources.add(await startTestProxy({ maxConnectionsPerAddress: 20 }));
    proxy.connect("harbor", registry.url);
    client = clientOf(proxy, "harbor");
    await client("GET", "app/tags/list");
  });
  beforeEach(() => {
    registry.requests.length = 0;
  });
  after(resources.stop);

  const port = (): number => Number(proxy.http.split(":")[1]);
  const ask = async (...lines: readonly string[]): Promise<string> => {
    const own = [`Authorization: ${client.authorization}`, "Connection: close"];
    const head = [`GET ${client.base}app/tags/list HTTP/1.1`, "Host: x", ...own, ...lines, "", ""];
    return (await rawRequest({ port: port() }, head.join("\r\n"))).text;
  };

  const ambiguous: readonly (readonly [string, string])[] = [
    ["Host: y", "the header host appears twice"],
    ["hOsT: x", "the header host appears twice"],
    ["Authorization: Bearer y", "the header authorization appears twice"],
    ["Connection: authorization", "Connection names the header authorization"],
    ["Connection: keep-alive,Host", "Connection names the header host"],
    ["Connection: x, Content-Length", "Connection names the header content-length"],
    ["Connection: Proxy-Authorization", "Connection names the header proxy-authorization"],
    ["Trailer: Authorization", "trailers are announced"],
    ["Trailer:", "trailers are announced"],
  ];
  for (const [line, complaint] of ambiguous) {
    it(`is refused with ${line}`, async () => {
      const text = await ask(line);
      expect(statusesIn(text)).to.deep.equal([400]);
      expect(text).to.contain(complaint);
      expect(registry.requests).to.deep.equal([]);
    });
  }

  for (const line of [
    "Connection: TE",
    "TE: trailers",
    "Accept: x",
    "Cookie: a=b",
    "Connection: keep-alive, Upgrade, HTTP2-Settings",
    "Range: bytes=0-5",
  ]) {
    it(`may have ${line}`, async () => {
      expect(statusesIn(await ask(line, "Accept: y"))).to.deep.equal([200]);
    });
  }

  it("comes over so many connections of one address, and not over more", async () => {
    const connections = await Promise.all(
      Array.from({ length: 20 }, () => openRaw({ port: port() })),
    );
    resources.defer(() => connections.map(({ stop }) => stop()));
    const further = await openRaw({ port: port() });
    await further.closed;
    for (const { stop } of connections) stop();
    await eventually(
      async () => statusesIn(await ask().catch(() => ""))[0] === 200,
      () => "they still count",
    );
  });
});
