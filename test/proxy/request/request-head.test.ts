import { expect } from "chai";
import fc from "fast-check";
import { basicChallenge, clientLogin } from "../../../src/proxy/request/request-head.ts";
import { parseChallenges } from "../../../src/upstream/challenge.ts";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { rawRequest, statusesIn } from "../../support/raw-request.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
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
    proxy = resources.add(await startTestProxy());
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

  const askAs = async (...hosts: readonly string[]): Promise<number | undefined> => {
    const lines = hosts.map((host) => `Host: ${host}`);
    const own = [`Authorization: ${client.authorization}`, "Connection: close"];
    const head = [`GET ${client.base}app/tags/list HTTP/1.1`, ...lines, ...own, "", ""];
    const { text } = await rawRequest({ port: port() }, head.join("\r\n"));
    return statusesIn(text)[0];
  };

  for (const host of [
    "user@127.0.0.1:5080",
    "user:password@x",
    "h/path",
    "http://h",
    "a b",
    "a\tb",
    "[::1",
    "::1",
    "[::1]x",
    "[x]",
    "[fe80::1%25eth0]",
    "[]",
    "[::1]:80x",
    "x#y",
    "x?y",
    "x\\y",
    "x:80:81",
    "x:y",
    "x%zz",
    "x^y",
    'x"y',
    "<x>",
    "\u00fc",
  ]) {
    it(`is refused with the host ${JSON.stringify(host)}`, async () => {
      expect(await askAs(host)).to.equal(400);
      expect(registry.requests).to.deep.equal([]);
    });
  }

  // Valid by the grammar, whatever they mean: the path names the connector.
  for (const host of ["", "a,b", "a;b=c", "x:", "x:5000", "127.0.0.1:1", "[::1]", "[::1]:5080"]) {
    it(`may have the host ${JSON.stringify(host)}`, async () => {
      expect(await askAs(host)).to.equal(200);
    });
  }
  it("may have hosts that nobody has any more, or yet", async () => {
    for (const host of ["X_y.Z.", "%41", "[v1.a:b]", "[::ffff:1.2.3.4]"]) {
      expect(await askAs(host), host).to.equal(200);
    }
  });

  for (const query of ["a=1;mount=x", ";", "n=1;", "a=1&amp;from=secret/private"]) {
    it(`is refused with the query ${query}, which some servers read as two parameters`, async () => {
      for (const [method, path] of [
        ["GET", "app/tags/list"],
        ["POST", "app/blobs/uploads/"],
        ["PUT", "app/manifests/1"],
      ] as const) {
        const answer = await client(method, `${path}?${query}`);
        expect(answer.status, method).to.equal(400);
        expect(errorIn(answer).message).to.contain('";"');
      }
      expect(registry.requests).to.deep.equal([]);
    });
  }

  it("may have a semicolon in a query that is encoded", async () => {
    expect((await client("GET", "app/tags/list?last=a%3Bb")).status).to.equal(200);
    expect(registry.requests.at(-1)?.url).to.contain("last=a%3Bb");
  });

  it("must have a host", async () => {
    expect(await askAs()).to.equal(400);
  });
});

const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString("base64")}`;

describe("a client's token", function () {
  this.timeout(10_000);
  const cases: readonly (readonly [string, string | undefined, string | undefined])[] = [
    ["the password of any user", basic("any:tok.en"), "tok.en"],
    ["the password of no user", basic(":token"), "token"],
    ["a password with colons", basic("user:a:b:"), "a:b:"],
    ["behind Bearer", "Bearer tok.en-_~+/==", "tok.en-_~+/=="],
    ["a scheme in any case, and spaces", `bAsIc   ${basic("a:b").slice(6)}  `, "b"],
    ["Bearer in any case", "BEARER x", "x"],
    ["no header", undefined, undefined],
    ["an empty header", "", undefined],
    ["no scheme", "token", undefined],
    ["another scheme", "Digest token", undefined],
    ["a scheme alone", "Basic", undefined],
    ["empty credentials, as containers/image sends them", basic(":"), undefined],
    ["a user alone", basic("user"), undefined],
    ["a user with a colon", basic("user:"), undefined],
    ["two credentials", `${basic("a:b")}, Bearer c`, undefined],
    ["two words", "Bearer a b", undefined],
    ["a parameter", 'Bearer token="a"', undefined],
    ["something that is no base64", "Basic a:b", undefined],
  ];
  for (const [name, header, token] of cases) {
    it(name, () => expect(clientLogin(header)?.token).to.equal(token));
  }

  it("is found whatever the user", () => {
    const user = fc.string().filter((text) => !text.includes(":"));
    const token = fc.stringMatching(/^[!-~]+$/);
    fc.assert(
      fc.property(user, token, (name, password) => {
        expect(clientLogin(basic(`${name}:${password}`))?.token).to.equal(password);
      }),
    );
  });

  it("is looked for in time in proportion to the header", () => {
    for (const unit of [" ", "a", "=", "a ", "= "]) {
      // Quadratic would take longer than a test may.
      expect(clientLogin(`Bearer a${unit.repeat(300_000)}\n`)).to.equal(undefined);
    }
  });
});

it("the challenge is one, and Basic", () => {
  const [challenge, ...others] = parseChallenges(basicChallenge);
  expect(others).to.deep.equal([]);
  expect(challenge?.scheme).to.equal("basic");
});
