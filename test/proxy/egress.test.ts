import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { Readable } from "node:stream";
import { createSecureContext } from "node:tls";
import { expect } from "chai";
import { parseEgressRules } from "../../src/connector/egress-rules.ts";
import { createEgress, type Egress } from "../../src/upstream/egress.ts";
import type { UpstreamPolicy } from "../../src/upstream/upstream-policy.ts";
import { cleanup } from "../support/cleanup.ts";
import { type EgressTestProxy, startEgressProxy } from "../support/egress-proxy.ts";
import { eventually } from "../support/eventually.ts";
import {
  type FakeRegistry,
  type FakeRegistryOptions,
  makeKeys,
  startFakeRegistry,
} from "../support/fake-registry.ts";
import { addBlob } from "../support/fake-registry-content.ts";
import { noise, sha256 } from "../support/oci-image.ts";
import {
  type PlainRequestOptions,
  type PlainResponse,
  plainRequest,
} from "../support/plain-request.ts";
import { askConnect, connectTlsInside, proxyAuth } from "./forward-mode/connect-client.ts";
import { clientOf, errorIn } from "./test-client.ts";
import { startTestProxy, type TestProxy, type TestProxyOptions } from "./test-proxy.ts";

const credential = { username: "alice", password: "secret-of-alice" };
const companyLogin = "build:company-secret-word";

/** The names of these registries lead nowhere but by the company's proxy: DNS has a public address for each. */
describe("registries behind a company's HTTP proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let company: EgressTestProxy;
  let login: string | undefined;
  let clockMs: number;
  /** By name; the others are at a public address. */
  let addresses: Map<string, string | undefined>;

  beforeEach(async () => {
    company = resources.add(await startEgressProxy());
    login = undefined;
    clockMs = 0;
    addresses = new Map();
  });
  afterEach(resources.stop);

  interface EgressSettings {
    readonly proxy?: string;
    readonly noProxy?: string;
    readonly resolves?: boolean;
    readonly ca?: string;
  }

  function egressOf({
    proxy,
    noProxy = "",
    resolves = false,
    ca,
  }: EgressSettings = {}): Promise<Egress> {
    const texts = { proxy: proxy ?? `http://127.0.0.1:${company.port}`, noProxy };
    const rules = parseEgressRules(texts, resolves, { proxy: "p", noProxy: "n" });
    if (!rules.ok || rules.value === undefined) throw new Error("no rules");
    return createEgress({
      rules: rules.value,
      readLogin: async () => {
        const [username, password] = login?.split(":") ?? [];
        return username === undefined || password === undefined
          ? undefined
          : { username, password };
      },
      secureContext: () => createSecureContext(ca === undefined ? {} : { ca }),
      now: () => clockMs,
    });
  }

  const lookup: TestProxyOptions["lookup"] = (hostname, _options, callback) => {
    const address = addresses.has(hostname) ? addresses.get(hostname) : "93.184.216.34";
    if (address === undefined) {
      callback(Object.assign(new Error("not found"), { code: "ENOTFOUND" }), []);
    } else callback(null, [{ address, family: 4 }]);
  };
  const startProxy = async (
    settings?: EgressSettings,
    options: TestProxyOptions = {},
  ): Promise<TestProxy> =>
    resources.add(await startTestProxy({ lookup, egress: await egressOf(settings), ...options }));
  const startRegistry = async (options: FakeRegistryOptions = {}): Promise<FakeRegistry> =>
    resources.add(
      await startFakeRegistry({
        hostname: "registry.example.com",
        address: "127.0.0.1",
        ...options,
      }),
    );
  const connect = (proxy: TestProxy, registry: FakeRegistry): ReturnType<typeof clientOf> => {
    proxy.connect("it", registry.url, {
      ...(registry.auth.mode === "none" ? {} : { credential }),
      caCertificates: registry.ca === undefined ? [] : [registry.ca],
    });
    return clientOf(proxy, "it");
  };
  const seen = (): string[] => company.requests.map(({ method, target }) => `${method} ${target}`);

  /** Both ways in which a request goes to a registry: by the read client, and by an agent of node:http. */
  const ways: readonly (readonly [string, string, PlainRequestOptions])[] = [
    ["GET", "app/tags/list", {}],
    ["POST", "app/blobs/uploads/?digest=sha256:0", { body: "blob" }],
  ];

  /** Where its own certificate is trusted, and that of another one. */
  const trust = (proxy: TestProxy, ...registries: readonly FakeRegistry[]): void => {
    const secrets = proxy.surroundings.secrets.get("it");
    const caCertificates = registries.flatMap(({ ca }) => ca ?? []);
    if (secrets !== undefined) secrets.current = { ...secrets.current, caCertificates };
  };
  const expectNoLogin = (registry: FakeRegistry): void => {
    for (const { headers } of registry.requests) {
      expect(headers).to.not.have.property("proxy-authorization");
    }
  };

  for (const scheme of ["http", "https"] as const) {
    const tls = scheme === "https";
    describe(`by ${scheme}`, () => {
      const blob = noise("blob", 3_000_000);
      const digest = sha256(blob);

      beforeEach(() => {
        company.login = companyLogin;
        login = companyLogin;
      });
      afterEach(() => {
        const header = `Basic ${Buffer.from(companyLogin).toString("base64")}`;
        expect(new Set(company.requests.map((request) => request.login))).to.deep.equal(
          new Set([header]),
        );
        // What is not encrypted is passed on by the company's proxy itself: many open tunnels to port 443 alone.
        const tunnels = company.requests.filter(({ method }) => method === "CONNECT").length;
        expect(tunnels).to.equal(tls ? company.requests.length : 0);
      });

      it("are pulled from, with their token server and their storage", async () => {
        const registry = await startRegistry({ auth: "bearer", tls });
        const storage = await startRegistry({ hostname: "storage.example.com", tls });
        addBlob(storage.repository("app"), blob);
        registry.on("GET blob", ({ path, send }) => send(307, { Location: storage.url + path }));
        const proxy = await startProxy();
        const client = connect(proxy, registry);
        trust(proxy, registry, storage);
        const { status, body } = await client("GET", `app/blobs/${digest}`);
        expect(status).to.equal(200);
        expect(body.equals(blob)).to.equal(true);
        expect(registry.requests.map(({ url }) => url).join(" ")).to.contain("/token?");
        expect(seen().join("\n")).to.contain(registry.host).and.contain(storage.host);
        expectNoLogin(registry);
        expectNoLogin(storage);
        expect(proxy.log()).to.not.contain("company-secret-word");
      });

      it("are pushed to, in one piece and in chunks", async () => {
        const registry = await startRegistry({ auth: "bearer", tls });
        const client = connect(await startProxy(), registry);
        const pushed = await client("POST", `app/blobs/uploads/?digest=${digest}`, { body: blob });
        expect(pushed.status).to.equal(201);
        const session = await client("POST", "app/blobs/uploads/");
        expect(session.status).to.equal(202);
        const chunked = await client("PATCH", session.headers.location ?? "", {
          body: Readable.from([blob.subarray(0, 1_000_000), blob.subarray(1_000_000)]),
        });
        expect(chunked.status).to.equal(202);
        const location = new URL(chunked.headers.location ?? "", "http://any");
        location.searchParams.set("digest", digest);
        const closed = await client("PUT", location.pathname + location.search);
        expect(closed.status, closed.body.toString()).to.equal(201);
        expect(company.sentBytes()).to.be.least(2 * blob.length);
        expectNoLogin(registry);
      });

      it("are asked again over the same connection", async () => {
        const registry = await startRegistry({ tls });
        const client = connect(await startProxy(), registry);
        for (let index = 0; index < 5; index += 1) {
          expect((await client("GET", "app/tags/list")).status).to.equal(404);
        }
        for (let index = 0; index < 3; index += 1) {
          const path = `app/blobs/uploads/?digest=${digest}`;
          expect((await client("POST", path, { body: blob })).status).to.equal(201);
        }
        expect(company.open.size).to.equal(2); // uploads have connections of their own
        if (tls) expect(company.requests).to.have.lengthOf(2);
      });
    });
  }

  describe("that can't be reached by it", () => {
    const expectError = async (
      tls: boolean,
      message: string | RegExp,
      settings?: EgressSettings,
    ): Promise<void> => {
      const registry = await startRegistry({ tls });
      const proxy = await startProxy(settings);
      const client = connect(proxy, registry);
      for (const [method, path, options] of ways) {
        const answer = await client(method, path, options);
        expect(answer.status, method).to.equal(503);
        const error = errorIn(answer);
        expect(error.message, method).to.match(new RegExp(message));
        expect(error.message, method).to.contain(`the egress proxy ${nameOf(settings)}`);
        expect(error.detail, method).to.be.a("string");
        expect(JSON.stringify(error) + proxy.log()).to.not.contain("secret-word");
      }
      expect(registry.requests).to.deep.equal([]);
    };
    const nameOf = (settings?: EgressSettings): string =>
      settings?.proxy ?? `http://127.0.0.1:${company.port}`;

    for (const tls of [false, true]) {
      const scheme = tls ? "https" : "http";
      it(`say by ${scheme} that nothing listens there`, async () => {
        await company.stop();
        await expectError(tls, "can't be reached: nothing listens there");
      });

      it(`say by ${scheme} that it wants a login`, async () => {
        company.login = companyLogin;
        await expectError(tls, "wants a login \\(407\\)$");
      });

      it(`say by ${scheme} that it has refused the login, which is not sent again at once`, async () => {
        company.login = companyLogin;
        login = "build:wrong-secret-word";
        await expectError(tls, "refused its login \\(407\\)");
        expect(company.requests).to.have.lengthOf(1);
      });

      it(`say by ${scheme} that it wants a login of another kind`, async () => {
        company.login = companyLogin;
        company.challenge = 'Negotiate, NTLM realm="x"';
        login = companyLogin.toUpperCase();
        const registry = await startRegistry({ tls });
        const client = connect(await startProxy(), registry);
        expect(errorIn(await client("GET", "app/tags/list")).message).to.contain(
          "wants a login by Negotiate or NTLM (407)",
        );
      });
    }

    it("say that it opens no tunnel", async () => {
      company.answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
      await expectError(true, "answered 403 to CONNECT registry.example.com:\\d+$");
    });

    it("say that its answer is not HTTP", async () => {
      company.answer = "SSH-2.0-OpenSSH_9.6\r\n\r\n";
      await expectError(true, "with no HTTP response: it begins with no status line");
    });

    it("say that its answer is too long", async () => {
      company.answer = `HTTP/1.1 200 OK\r\nX: ${"x".repeat(64 * 1024)}`;
      await expectError(true, "with no HTTP response: the head of the response is too long");
    });

    it("say that it does not answer", async function () {
      this.timeout(40_000);
      company.delayMs = 60_000;
      const registry = await startRegistry({ tls: true });
      const proxy = await startProxy();
      const client = connect(proxy, registry);
      const answers = await Promise.all(ways.map((way) => client(...way)));
      for (const answer of answers) {
        expect(answer.status).to.equal(503);
        expect(errorIn(answer).message).to.match(/does not answer CONNECT registry\.example\.com/);
      }
      await eventually(
        () => company.open.size === 0,
        () =>
          JSON.stringify([...company.open].map((x) => [x.destroyed, x.readyState, x.bytesRead])),
      );
    });

    it("say what is wrong with its certificate, where it speaks TLS itself", async () => {
      const { authority, ...keys } = await makeKeys("127.0.0.1");
      const secure = resources.add(await startEgressProxy({ tls: keys }));
      const name = `https://127.0.0.1:${secure.port}`;
      await expectError(true, "signed by an authority that is not trusted", { proxy: name });
      expect(authority).to.contain("CERTIFICATE");
      expect(secure.requests).to.deep.equal([]);
    });
  });

  it("are reached by a proxy that speaks TLS itself", async () => {
    const { authority, ...keys } = await makeKeys("127.0.0.1");
    const secure = resources.add(await startEgressProxy({ tls: keys }));
    secure.login = companyLogin;
    login = companyLogin;
    const settings = { proxy: `https://127.0.0.1:${secure.port}`, ca: authority };
    for (const tls of [false, true]) {
      const registry = await startRegistry({ tls });
      const blob = noise("blob", 300_000);
      addBlob(registry.repository("app"), blob);
      const client = connect(await startProxy(settings), registry);
      const pulled = await client("GET", `app/blobs/${sha256(blob)}`);
      expect(pulled.body.equals(blob)).to.equal(true);
      const pushed = await client("POST", `app/blobs/uploads/?digest=${sha256(blob)}`, {
        body: blob,
      });
      expect(pushed.status).to.equal(201);
    }
    expect(secure.requests.filter(({ method }) => method === "CONNECT")).to.have.lengthOf(2);
  });

  it("are reached directly where the list of exceptions has them", async () => {
    addresses.set("registry.example.com", "127.0.0.1");
    const registry = await startRegistry();
    const client = connect(await startProxy({ noProxy: "x.test,.example.com" }), registry);
    for (const way of ways) expect((await client(...way)).status).to.be.oneOf([400, 404]);
    expect(company.requests).to.deep.equal([]);
  });

  it("are reached directly where they are on the machine itself", async () => {
    const registry = await startRegistry({ hostname: "127.0.0.1" });
    const client = connect(await startProxy(), registry);
    expect((await client("GET", "app/tags/list")).status).to.equal(404);
    expect(company.requests).to.deep.equal([]);
  });

  it("have to show a certificate of their own, also where they are at an IP address", async () => {
    const hostname = "93.184.216.34";
    const registry = await startRegistry({ hostname, tls: true });
    const client = connect(await startProxy(), registry);
    for (const way of ways) expect((await client(...way)).status).to.be.oneOf([400, 404]);
    const { authority, ...keys } = await makeKeys("127.0.0.1"); // the address of the company's proxy
    const other = await startRegistry({ hostname, tls: keys });
    const proxy = await startProxy();
    proxy.connect("it", other.url, { caCertificates: [authority] });
    for (const way of ways) {
      const answer = await clientOf(proxy, "it")(...way);
      expect(answer.status).to.be.oneOf([502, 503]);
      expect(errorIn(answer).message).to.contain("certificate");
    }
    expect(other.requests).to.deep.equal([]);
  });

  it("get one login of the company's at a time until it is known, and a changed one at once", async () => {
    company.login = companyLogin;
    login = "build:wrong";
    const registry = await startRegistry({ tls: true });
    const client = connect(await startProxy(), registry);
    const pullAll = async (): Promise<number[]> => {
      const clients = Array.from({ length: 24 }, () => client("GET", "app/tags/list"));
      return (await Promise.all(clients)).map(({ status }) => status);
    };
    const failures = (): number => company.requests.filter(({ status }) => status === 407).length;
    for (let second = 0; second < 300; second += 1) {
      clockMs = second * 1000;
      if (second % 10 === 0) expect(new Set(await pullAll())).to.deep.equal(new Set([503]));
    }
    expect(failures()).to.be.within(2, 4);
    login = companyLogin;
    clockMs += 3_000;
    expect(new Set(await pullAll())).to.deep.equal(new Set([404]));
  });

  describe("are judged by the address guard", () => {
    const tagsOf = async (
      hostname: string,
      settings?: EgressSettings,
      options?: TestProxyOptions,
    ): Promise<PlainResponse> => {
      const registry = await startRegistry({ hostname, tls: true });
      const client = connect(await startProxy(settings, options), registry);
      return await client("GET", "app/tags/list");
    };

    it("by the addresses that DNS has for them, none of which may be one that is closed", async () => {
      addresses.set("meta.example.com", "169.254.169.254");
      const answer = await tagsOf("meta.example.com");
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).message).to.contain("never connected to");
      const several: TestProxyOptions["lookup"] = (_name, _options, callback) =>
        callback(null, [
          { address: "93.184.216.34", family: 4 },
          { address: "169.254.169.254", family: 4 },
        ]);
      expect((await tagsOf("two.example.com", {}, { lookup: several })).status).to.equal(403);
      expect(company.requests).to.deep.equal([]);
    });

    it("also where they are IP addresses, and in the cluster by its policy", async () => {
      const upstreamPolicy: UpstreamPolicy = {
        rules: { hosts: [], networks: [], neverNetworks: ["10.96.0.0/12"] },
        nearAddresses: () => ({ pod: ["10.1.1.1"], node: [], apiServer: [] }),
      };
      const proxy = await startProxy({}, { upstreamPolicy });
      for (const host of ["169.254.169.254", "10.1.1.1", "10.96.0.1", "[fd00:ec2::254]"]) {
        proxy.connect("it", `https://${host}:443`);
        for (const way of ways) {
          const { status } = await clientOf(proxy, "it")(...way);
          expect(status, `${way[0]} ${host}`).to.be.oneOf([403, 503]);
        }
      }
      addresses.set("api.corp", "10.96.0.1");
      proxy.connect("it", "https://api.corp");
      expect((await clientOf(proxy, "it")("GET", "app/tags/list")).status).to.be.oneOf([403, 503]);
      expect(company.requests).to.deep.equal([]);
    });

    it("and are refused where DNS does not know them, unless that is said to be the proxy's part", async () => {
      addresses.set("registry.corp", undefined);
      const refused = await tagsOf("registry.corp");
      expect(refused.status).to.equal(503);
      expect(errorIn(refused).message).to.contain(
        "can't be reached: DNS here has no address of registry.corp that could be judged",
      );
      expect(errorIn(refused).detail).to.contain("EGRESS_RESOLVES=true");
      expect(company.requests).to.deep.equal([]);
      expect((await tagsOf("registry.corp", { resolves: true })).status).to.equal(404);
    });

    it("by their names, where the proxy resolves them", async () => {
      const unknown: TestProxyOptions["lookup"] = (_name, _options, callback) =>
        callback(Object.assign(new Error("not found"), { code: "ENOTFOUND" }), []);
      const resolves = { resolves: true };
      for (const hostname of [
        "x.localhost",
        "metadata.google.internal",
        "instance-data.ec2.internal",
      ]) {
        const answer = await tagsOf(hostname, resolves, { lookup: unknown });
        expect(answer.status, hostname).to.equal(403);
        expect(errorIn(answer).message).to.contain("by its name one that is never connected to");
      }
      expect(company.requests).to.deep.equal([]);
      for (const hostname of ["registry", "registry.corp", "registry.example.com"]) {
        expect((await tagsOf(hostname, resolves, { lookup: unknown })).status).to.equal(404);
      }
    });

    it("by their names, also where a registry refers to them", async () => {
      const registry = await startRegistry();
      let location = "";
      registry.on("GET blob", ({ send }) => send(307, { Location: location }));
      addresses.set("inside", undefined);
      addresses.set("storage.corp", undefined);
      addresses.set("storage.example.org", undefined);
      const client = connect(await startProxy({ resolves: true }), registry);
      const blob = noise("blob", 1000);
      for (const [host, status] of [
        ["inside", 403],
        ["storage.corp", 403],
        ["storage.example.org", 200],
      ]) {
        const storage = await startRegistry({ hostname: String(host) });
        addBlob(storage.repository("app"), blob);
        location = `${storage.url}/v2/app/blobs/${sha256(blob)}`;
        const answer = await client("GET", `app/blobs/${sha256(blob)}`);
        expect(answer.status, String(host)).to.equal(status);
      }
    });
  });

  describe("and other hosts that clients reach", () => {
    /** One volume of each proxy: no other one gets its connections. */
    const tokens = new WeakMap<TestProxy, string>();
    const credentialOf = (from: TestProxy): string => {
      const token = tokens.get(from) ?? from.token("it");
      tokens.set(from, token);
      return proxyAuth(token, "it");
    };
    const ask = (
      proxy: TestProxy,
      url: string,
      options: PlainRequestOptions = {},
    ): Promise<PlainResponse> =>
      plainRequest(`http://${proxy.http}/`, {
        ...options,
        target: url,
        headers: { host: new URL(url).host, "proxy-authorization": credentialOf(proxy) },
      });
    let proxy: TestProxy;
    let other: FakeRegistry;

    beforeEach(async () => {
      company.login = companyLogin;
      login = companyLogin;
      proxy = await startProxy();
      other = await startRegistry({ hostname: "deb.example.org" });
      proxy.connect("it", "https://registry.example.com");
    });

    it("get requests of plain HTTP in absolute form, with the company's login and not the client's", async () => {
      for (let index = 0; index < 3; index += 1) {
        expect((await ask(proxy, `${other.url}/v2/`)).status).to.equal(200);
      }
      expect((await ask(proxy, `${other.url}/v2/`, { method: "POST", body: "x" })).status).to.equal(
        405,
      );
      expect(seen()[0]).to.equal(`GET ${other.url}/v2/`);
      const header = `Basic ${Buffer.from(companyLogin).toString("base64")}`;
      expect(new Set(company.requests.map((request) => request.login))).to.deep.equal(
        new Set([header]),
      );
      expect(company.open.size).to.equal(1);
      expectNoLogin(other);
    });

    it("get blind tunnels by tunnels of the company's proxy", async () => {
      const to = `deb.example.org:${other.port}`;
      const tunnel = await askConnect(proxy, { to, credential: credentialOf(proxy) });
      expect(tunnel.status).to.equal(200);
      tunnel.send(`GET /v2/ HTTP/1.1\r\nHost: ${to}\r\n\r\n`);
      await tunnel.waitFor(/HTTP\/1\.1 200 OK/);
      tunnel.stop();
      expect(seen()).to.deep.equal([`CONNECT ${to}`]);
    });

    it("get the first bytes of a host that speaks first", async () => {
      const server = createServer((socket) => void socket.end("220 ready\r\n"));
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      resources.defer(() => server.close());
      const to = `mail.example.org:${(server.address() as AddressInfo).port}`;
      const tunnel = await askConnect(proxy, { to, credential: credentialOf(proxy) });
      await tunnel.waitFor(/220 ready/);
      tunnel.stop();
    });

    it("are refused as they are without a company's proxy", async () => {
      addresses.set("inside.example.org", "10.1.2.3");
      addresses.set("meta.example.org", "169.254.169.254");
      for (const to of ["inside.example.org", "meta.example.org", "10.1.2.3", "169.254.169.254"]) {
        const credential = credentialOf(proxy);
        const tunnel = await askConnect(proxy, { to: `${to}:443`, credential });
        expect(tunnel.status, to).to.equal(403);
        tunnel.stop();
        expect((await ask(proxy, `http://${to}/`)).status, to).to.equal(403);
      }
      expect(company.requests).to.deep.equal([]);
    });

    it("are refused by their names where the company's proxy resolves them", async () => {
      const resolving = await startProxy({ resolves: true });
      resolving.connect("it", "https://registry.example.com");
      for (const host of ["inside", "wiki.corp", "metadata.google.internal"]) {
        addresses.set(host, undefined);
        expect((await ask(resolving, `http://${host}/`)).status, host).to.equal(403);
      }
      addresses.set("deb.example.org", undefined);
      expect((await ask(resolving, `${other.url}/v2/`)).status).to.equal(200);
      expect(company.requests).to.have.lengthOf(1);
    });

    it("have errors that name the company's proxy", async () => {
      company.login = "build:another";
      const asked = await ask(proxy, `${other.url}/v2/`);
      expect(asked.status).to.equal(502);
      expect(errorIn(asked).message).to.contain("refused its login (407)");
      const to = `deb.example.org:${other.port}`;
      const tunnel = await askConnect(proxy, { to, credential: credentialOf(proxy) });
      expect(tunnel.status).to.equal(502);
      await tunnel.waitFor(/has refused its login \(407\), which is tried again in 60 s/);
      tunnel.stop();
    });

    it("have another path of a registry's host passed on by a tunnel", async () => {
      const registry = await startRegistry({ tls: true });
      proxy.connect("it", registry.url, { caCertificates: [registry.ca ?? ""] });
      const credential = proxyAuth(proxy.token("it"), "it");
      const inside = await connectTlsInside(proxy, { to: registry.host, credential });
      inside.write(`GET /token HTTP/1.1\r\nHost: ${registry.host}\r\nConnection: close\r\n\r\n`);
      const [chunk] = await once(inside, "data");
      expect(String(chunk)).to.match(/^HTTP\/1\.1 \d{3} /);
      inside.destroy();
      expect(registry.requests.map(({ url }) => url)).to.deep.equal(["/token"]);
      expect(seen()).to.deep.equal([`CONNECT ${registry.host}`]);
    });
  });
});
