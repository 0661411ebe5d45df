import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { rawRequest, statusesIn } from "../../support/raw-request.ts";
import { basicAuth, clientOf } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";
import { askConnect, connectHead, proxyAuth } from "./connect-client.ts";

describe("a CONNECT request to the forward proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let credential: string;

  beforeEach(async () => {
    registry = resources.add(await startFakeRegistry({ tls: true, hostname: "harbor.test" }));
    const limits = { maxTunnelsPerSubject: 3 };
    proxy = resources.add(
      await startTestProxy({
        limits,
        lookup: (_name, _options, callback) =>
          callback(null, [{ address: "127.0.0.1", family: 4 }]),
      }),
    );
    proxy.connect("harbor", registry.url, { caCertificates: [registry.ca ?? ""] });
    proxy.connect("other", "https://other.test");
    credential = proxyAuth(proxy.token("harbor"), "harbor");
  });
  afterEach(resources.stop);

  const answerTo = async (
    to: string,
    header: string,
  ): Promise<{ status: number | undefined; text: string; closed: boolean }> => {
    const port = Number(proxy.http.split(":")[1]);
    const { text, closed } = await rawRequest({ port }, connectHead({ to, credential: header }));
    return { status: statusesIn(text)[0], text, closed };
  };

  const strangers: readonly [string, () => string][] = [
    ["no credential", () => ""],
    ["a token that is unknown", () => proxyAuth("unknown", "harbor")],
    ["Bearer", () => `Bearer ${proxy.token("harbor")}`],
    ["a user that names no connector", () => basicAuth(proxy.token("harbor"), "any")],
  ];
  for (const [name, header] of strangers) {
    it(`with ${name} is answered 407, with a challenge and what to do`, async () => {
      for (const to of [registry.host, "example.com:443"]) {
        const { status, text, closed } = await answerTo(to, header());
        expect({ status, closed }).to.deep.equal({ status: 407, closed: true });
        expect(text).to.match(/^proxy-authenticate: Basic realm="[^"]+"\r$/im);
        expect(text.toLowerCase()).to.not.match(/\nwww-authenticate|\nset-cookie/);
      }
      expect(registry.requests).to.deep.equal([]);
    });
  }

  for (const to of [
    "harbor.test",
    "harbor.test:0",
    "harbor.test:99999",
    ":443",
    "2130706433:443",
    "127.1:443",
    "0x7f.1:443",
    "[::1%25lo]:443",
    "a@harbor.test:443",
    "https://harbor.test:443",
  ]) {
    it(`to ${to} is answered 400`, async () => {
      const { status, text, closed } = await answerTo(to, credential);
      // Node itself refuses some of them, before anybody is asked.
      expect({ status, closed }, text).to.deep.equal({ status: 400, closed: true });
    });
  }

  for (const [to, why] of [
    ["127.0.0.1:443", "an internal address"],
    ["[::1]:443", "an internal address"],
    ["[::ffff:127.0.0.1]:443", "an internal address"],
    ["[::ffff:a9fe:a9fe]:80", "never connected to"],
    ["[64:ff9b::7f00:1]:443", "an internal address"],
    ["169.254.169.254:80", "never connected to"],
    ["10.96.0.1:443", "an internal address"],
    ["0.0.0.0:80", "never connected to"],
    ["localtest.test:443", "is at 127.0.0.1, an internal address"],
  ] as const) {
    it(`to ${to} is refused, with the reason where clients show it`, async () => {
      const { status, text } = await answerTo(to, credential);
      expect(status).to.equal(403);
      const [phrase = "", ...others] = text.split("\r\n");
      expect(phrase).to.include(why);
      expect(others.at(-1)).to.include("TUNNEL");
    });
  }

  it("to another port of a registry is none to the registry", async () => {
    const answer = await answerTo("harbor.test:1", credential);
    expect(answer.status).to.equal(403);
    expect(answer.text).to.include("harbor.test is at 127.0.0.1");
  });

  it("to a registry of a connector that is not named, or not allowed, is one to any host", async () => {
    for (const header of [
      proxyAuth(proxy.token("harbor"), "other"),
      proxyAuth(proxy.token("other"), "harbor"),
      proxyAuth(proxy.token("harbor"), "none"),
    ]) {
      const answer = await answerTo(registry.host, header);
      expect(answer.text).to.match(
        /^HTTP\/1.1 403 harbor.test is at 127.0.0.1, an internal address/,
      );
    }
    expect(registry.requests).to.deep.equal([]);
  });

  it("says which right is missing to a Pod of the connector's own namespace", async () => {
    const token = proxy.token("other");
    const identity = proxy.surroundings.identities.get(token);
    if (identity === undefined) throw new Error();
    const pod = { namespace: "team-a", name: "build-1" };
    proxy.surroundings.identities.set(token, { ...identity, pod });
    const answer = await answerTo(registry.host, proxyAuth(token, "harbor"));
    expect(answer.text).to.match(/^HTTP\/1.1 403 volume:\S+ may not use team-a\/harbor/);
  });

  for (const away of ["verifyToken", "findConnector", "mayUse"] as const) {
    it(`is answered 503 while ${away} can't be asked`, async () => {
      proxy.surroundings.away = away;
      const { status, text } = await answerTo(registry.host, credential);
      expect(status).to.equal(503);
      expect(text.toLowerCase()).to.include("retry-after:");
    });
  }

  it("is one of so many of a volume, until they are closed", async () => {
    const open = () => askConnect(proxy, { to: registry.host, credential });
    const tunnels = [await open(), await open(), await open()];
    expect((await answerTo(registry.host, credential)).status).to.equal(429);
    const neighbour = proxyAuth(proxy.token("harbor"), "harbor");
    resources.add(await askConnect(proxy, { to: registry.host, credential: neighbour }));
    for (const tunnel of tunnels) tunnel.stop();
    for (;;) {
      const again = resources.add(await open());
      if (again.status === 200) break;
      expect(again.status).to.equal(429);
    }
  });

  it("with two credentials is answered 400", async () => {
    const other = `${credential}\r\nProxy-Authorization: ${proxyAuth("other", "harbor")}`;
    expect((await answerTo(registry.host, other)).status).to.equal(400);
  });

  it("in the same bytes as a request before it is cut", async () => {
    const { authorization, base } = clientOf(proxy, "harbor");
    const get = `GET ${base}app/tags/list HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\n\r\n`;
    const port = Number(proxy.http.split(":")[1]);
    const head = connectHead({ to: registry.host, credential });
    const { text, closed } = await rawRequest({ port }, get + head);
    expect(statusesIn(text)).to.not.include(200);
    expect(closed).to.equal(true);
  });
});
