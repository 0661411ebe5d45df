import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { expect } from "chai";
import type { UpstreamPolicy } from "../../src/upstream/upstream-policy.ts";
import { cleanup } from "../support/cleanup.ts";
import type { FakeRegistry } from "../support/fake-registry.ts";
import { addBlob } from "../support/fake-registry-content.ts";
import { noise, sha256 } from "../support/oci-image.ts";
import {
  type PlainRequestOptions,
  type PlainResponse,
  plainRequest,
} from "../support/plain-request.ts";
import {
  bothWays,
  type CompanyNetwork,
  connectRegistry,
  type EgressTestSettings,
  expectCompanyLogin,
  expectNoLogin,
  startCompanyNetwork,
} from "./company-network.ts";
import { askConnect, connectTlsInside, proxyAuth } from "./forward-mode/connect-client.ts";
import { clientOf, errorIn } from "./test-client.ts";
import type { TestProxy, TestProxyOptions } from "./test-proxy.ts";

describe("hosts behind a company's HTTP proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let network: CompanyNetwork;

  beforeEach(async () => {
    network = await startCompanyNetwork(resources);
  });
  afterEach(resources.stop);

  describe("are judged by the address guard", () => {
    const tagsOf = async (
      hostname: string,
      settings?: EgressTestSettings,
      options?: TestProxyOptions,
    ): Promise<PlainResponse> => {
      const registry = await network.startRegistry({ hostname, tls: true });
      const client = connectRegistry(await network.startProxy(settings, options), registry);
      return await client("GET", "app/tags/list");
    };

    it("by the addresses that DNS has for them, none of which may be one that is closed", async () => {
      network.addresses.set("meta.example.com", "169.254.169.254");
      const answer = await tagsOf("meta.example.com");
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).message).to.contain("never connected to");
      const several: TestProxyOptions["lookup"] = (_name, _options, callback) =>
        callback(null, [
          { address: "93.184.216.34", family: 4 },
          { address: "169.254.169.254", family: 4 },
        ]);
      expect((await tagsOf("two.example.com", {}, { lookup: several })).status).to.equal(403);
      expect(network.company.requests).to.deep.equal([]);
    });

    it("also where they are IP addresses, and in the cluster by its policy", async () => {
      const upstreamPolicy: UpstreamPolicy = {
        rules: { hosts: [], networks: [], neverNetworks: ["10.96.0.0/12"] },
        nearAddresses: () => ({ pod: ["10.1.1.1"], node: [], apiServer: [] }),
      };
      const proxy = await network.startProxy({}, { upstreamPolicy });
      for (const host of ["169.254.169.254", "10.1.1.1", "10.96.0.1", "[fd00:ec2::254]"]) {
        proxy.connect("it", `https://${host}:443`);
        for (const way of bothWays) {
          const { status } = await clientOf(proxy, "it")(...way);
          expect(status, `${way[0]} ${host}`).to.be.oneOf([403, 503]);
        }
      }
      network.addresses.set("api.corp", "10.96.0.1");
      proxy.connect("it", "https://api.corp");
      expect((await clientOf(proxy, "it")("GET", "app/tags/list")).status).to.be.oneOf([403, 503]);
      expect(network.company.requests).to.deep.equal([]);
    });

    it("and are refused where DNS does not know them, unless that is said to be the proxy's part", async () => {
      network.addresses.set("registry.corp", undefined);
      const refused = await tagsOf("registry.corp");
      expect(refused.status).to.equal(503);
      expect(errorIn(refused).message).to.contain(
        "can't be reached: DNS here has no address of registry.corp that could be judged",
      );
      expect(errorIn(refused).detail).to.contain("EGRESS_RESOLVES=true");
      expect(network.company.requests).to.deep.equal([]);
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
      expect(network.company.requests).to.deep.equal([]);
      for (const hostname of ["registry", "registry.corp", "registry.example.com"]) {
        expect((await tagsOf(hostname, resolves, { lookup: unknown })).status).to.equal(404);
      }
    });

    it("by their names, also where a registry refers to them", async () => {
      const registry = await network.startRegistry();
      let location = "";
      registry.on("GET blob", ({ send }) => send(307, { Location: location }));
      network.addresses.set("inside", undefined);
      network.addresses.set("storage.corp", undefined);
      network.addresses.set("storage.example.org", undefined);
      const client = connectRegistry(await network.startProxy({ resolves: true }), registry);
      const blob = noise("blob", 1000);
      for (const [host, status] of [
        ["inside", 403],
        ["storage.corp", 403],
        ["storage.example.org", 200],
      ]) {
        const storage = await network.startRegistry({ hostname: String(host) });
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
      network.requireLogin();
      proxy = await network.startProxy();
      other = await network.startRegistry({ hostname: "deb.example.org" });
      proxy.connect("it", "https://registry.example.com");
    });

    it("get requests of plain HTTP in absolute form, with the company's login and not the client's", async () => {
      for (let index = 0; index < 3; index += 1) {
        expect((await ask(proxy, `${other.url}/v2/`)).status).to.equal(200);
      }
      expect((await ask(proxy, `${other.url}/v2/`, { method: "POST", body: "x" })).status).to.equal(
        405,
      );
      expect(network.seen()[0]).to.equal(`GET ${other.url}/v2/`);
      expectCompanyLogin(network);
      expect(network.company.open.size).to.equal(1);
      expectNoLogin(other);
    });

    it("get blind tunnels by tunnels of the company's proxy", async () => {
      const to = `deb.example.org:${other.port}`;
      const tunnel = await askConnect(proxy, { to, credential: credentialOf(proxy) });
      expect(tunnel.status).to.equal(200);
      tunnel.send(`GET /v2/ HTTP/1.1\r\nHost: ${to}\r\n\r\n`);
      await tunnel.waitFor(/HTTP\/1\.1 200 OK/);
      tunnel.stop();
      expect(network.seen()).to.deep.equal([`CONNECT ${to}`]);
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
      network.addresses.set("inside.example.org", "10.1.2.3");
      network.addresses.set("meta.example.org", "169.254.169.254");
      for (const to of ["inside.example.org", "meta.example.org", "10.1.2.3", "169.254.169.254"]) {
        const credential = credentialOf(proxy);
        const tunnel = await askConnect(proxy, { to: `${to}:443`, credential });
        expect(tunnel.status, to).to.equal(403);
        tunnel.stop();
        expect((await ask(proxy, `http://${to}/`)).status, to).to.equal(403);
      }
      expect(network.company.requests).to.deep.equal([]);
    });

    it("are refused by their names where the company's proxy resolves them", async () => {
      const resolving = await network.startProxy({ resolves: true });
      resolving.connect("it", "https://registry.example.com");
      for (const host of ["inside", "wiki.corp", "metadata.google.internal"]) {
        network.addresses.set(host, undefined);
        expect((await ask(resolving, `http://${host}/`)).status, host).to.equal(403);
      }
      network.addresses.set("deb.example.org", undefined);
      expect((await ask(resolving, `${other.url}/v2/`)).status).to.equal(200);
      expect(network.company.requests).to.have.lengthOf(1);
    });

    it("have errors that name the company's proxy", async () => {
      network.company.login = "build:another";
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
      const registry = await network.startRegistry({ tls: true });
      proxy.connect("it", registry.url, { caCertificates: [registry.ca ?? ""] });
      const credential = proxyAuth(proxy.token("it"), "it");
      const inside = await connectTlsInside(proxy, { to: registry.host, credential });
      inside.write(`GET /token HTTP/1.1\r\nHost: ${registry.host}\r\nConnection: close\r\n\r\n`);
      const [chunk] = await once(inside, "data");
      expect(String(chunk)).to.match(/^HTTP\/1\.1 \d{3} /);
      inside.destroy();
      expect(registry.requests.map(({ url }) => url)).to.deep.equal(["/token"]);
      expect(network.seen()).to.deep.equal([`CONNECT ${registry.host}`]);
    });
  });
});
