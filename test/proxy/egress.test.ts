import { Readable } from "node:stream";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { startEgressProxy } from "../support/egress-proxy.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, makeKeys } from "../support/fake-registry.ts";
import { addBlob } from "../support/fake-registry-content.ts";
import { noise, sha256 } from "../support/oci-image.ts";
import {
  bothWays,
  type CompanyNetwork,
  companyLogin,
  connectRegistry,
  type EgressTestSettings,
  expectCompanyLogin,
  expectNoLogin,
  startCompanyNetwork,
} from "./company-network.ts";
import { clientOf, errorIn } from "./test-client.ts";
import type { TestProxy } from "./test-proxy.ts";

describe("registries behind a company's HTTP proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let network: CompanyNetwork;

  beforeEach(async () => {
    network = await startCompanyNetwork(resources);
  });
  afterEach(resources.stop);

  /** Trusts the certificates of several registries. */
  const trust = (proxy: TestProxy, ...registries: readonly FakeRegistry[]): void => {
    const secrets = proxy.surroundings.secrets.get("it");
    const caCertificates = registries.flatMap(({ ca }) => ca ?? []);
    if (secrets !== undefined) secrets.current = { ...secrets.current, caCertificates };
  };

  for (const scheme of ["http", "https"] as const) {
    const tls = scheme === "https";
    describe(`by ${scheme}`, () => {
      const blob = noise("blob", 3_000_000);
      const digest = sha256(blob);

      beforeEach(() => {
        network.requireLogin();
      });
      afterEach(() => {
        expectCompanyLogin(network);
        // What is not encrypted is passed on by the company's proxy itself: many open tunnels to port 443 alone.
        const tunnels = network.company.requests.filter(
          ({ method }) => method === "CONNECT",
        ).length;
        expect(tunnels).to.equal(tls ? network.company.requests.length : 0);
      });

      it("are pulled from, with their token server and their storage", async () => {
        const registry = await network.startRegistry({ auth: "bearer", tls });
        const storage = await network.startRegistry({ hostname: "storage.example.com", tls });
        addBlob(storage.repository("app"), blob);
        registry.on("GET blob", ({ path, send }) => send(307, { Location: storage.url + path }));
        const proxy = await network.startProxy();
        const client = connectRegistry(proxy, registry);
        trust(proxy, registry, storage);
        const { status, body } = await client("GET", `app/blobs/${digest}`);
        expect(status).to.equal(200);
        expect(body.equals(blob)).to.equal(true);
        expect(registry.requests.map(({ url }) => url).join(" ")).to.contain("/token?");
        expect(network.seen().join("\n")).to.contain(registry.host).and.contain(storage.host);
        expectNoLogin(registry);
        expectNoLogin(storage);
        expect(proxy.log()).to.not.contain("company-secret-word");
      });

      it("are pushed to, in one piece and in chunks", async () => {
        const registry = await network.startRegistry({ auth: "bearer", tls });
        const client = connectRegistry(await network.startProxy(), registry);
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
        expect(network.company.sentBytes()).to.be.least(2 * blob.length);
        expectNoLogin(registry);
      });

      it("are asked again over the same connection", async () => {
        const registry = await network.startRegistry({ tls });
        const client = connectRegistry(await network.startProxy(), registry);
        for (let index = 0; index < 5; index += 1) {
          expect((await client("GET", "app/tags/list")).status).to.equal(404);
        }
        for (let index = 0; index < 3; index += 1) {
          const path = `app/blobs/uploads/?digest=${digest}`;
          expect((await client("POST", path, { body: blob })).status).to.equal(201);
        }
        expect(network.company.open.size).to.equal(2); // uploads have connections of their own
        if (tls) expect(network.company.requests).to.have.lengthOf(2);
      });
    });
  }

  describe("that can't be reached by it", () => {
    const expectError = async (
      tls: boolean,
      message: string | RegExp,
      settings?: EgressTestSettings,
    ): Promise<void> => {
      const registry = await network.startRegistry({ tls });
      const proxy = await network.startProxy(settings);
      const client = connectRegistry(proxy, registry);
      for (const [method, path, options] of bothWays) {
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
    const nameOf = (settings?: EgressTestSettings): string =>
      settings?.proxy ?? `http://127.0.0.1:${network.company.port}`;

    for (const tls of [false, true]) {
      const scheme = tls ? "https" : "http";
      it(`say by ${scheme} that nothing listens there`, async () => {
        await network.company.stop();
        await expectError(tls, "can't be reached: nothing listens there");
      });

      it(`say by ${scheme} that it wants a login`, async () => {
        network.company.login = companyLogin;
        await expectError(tls, "wants a login \\(407\\)$");
      });

      it(`say by ${scheme} that it has refused the login, which is not sent again at once`, async () => {
        network.company.login = companyLogin;
        network.login = "build:wrong-secret-word";
        await expectError(tls, "refused its login \\(407\\)");
        expect(network.company.requests).to.have.lengthOf(1);
      });

      it(`say by ${scheme} that it wants a login of another kind`, async () => {
        network.company.login = companyLogin;
        network.company.challenge = 'Negotiate, NTLM realm="x"';
        network.login = companyLogin.toUpperCase();
        const registry = await network.startRegistry({ tls });
        const client = connectRegistry(await network.startProxy(), registry);
        expect(errorIn(await client("GET", "app/tags/list")).message).to.contain(
          "wants a login by Negotiate or NTLM (407)",
        );
      });
    }

    it("say that it opens no tunnel", async () => {
      network.company.answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
      await expectError(true, "answered 403 to CONNECT registry.example.com:\\d+$");
    });

    it("say that its answer is not HTTP", async () => {
      network.company.answer = "SSH-2.0-OpenSSH_9.6\r\n\r\n";
      await expectError(true, "with no HTTP response: it begins with no status line");
    });

    it("say that its answer is too long", async () => {
      network.company.answer = `HTTP/1.1 200 OK\r\nX: ${"x".repeat(64 * 1024)}`;
      await expectError(true, "with no HTTP response: the head of the response is too long");
    });

    it("say that it does not answer", async function () {
      this.timeout(40_000);
      network.company.delayMs = 60_000;
      const registry = await network.startRegistry({ tls: true });
      const proxy = await network.startProxy();
      const client = connectRegistry(proxy, registry);
      const answers = await Promise.all(bothWays.map((way) => client(...way)));
      for (const answer of answers) {
        expect(answer.status).to.equal(503);
        expect(errorIn(answer).message).to.match(/does not answer CONNECT registry\.example\.com/);
      }
      await eventually(
        () => network.company.open.size === 0,
        () =>
          JSON.stringify(
            [...network.company.open].map((x) => [x.destroyed, x.readyState, x.bytesRead]),
          ),
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
    network.login = companyLogin;
    const settings = { proxy: `https://127.0.0.1:${secure.port}`, ca: authority };
    for (const tls of [false, true]) {
      const registry = await network.startRegistry({ tls });
      const blob = noise("blob", 300_000);
      addBlob(registry.repository("app"), blob);
      const client = connectRegistry(await network.startProxy(settings), registry);
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
    network.addresses.set("registry.example.com", "127.0.0.1");
    const registry = await network.startRegistry();
    const client = connectRegistry(
      await network.startProxy({ noProxy: "x.test,.example.com" }),
      registry,
    );
    for (const way of bothWays) expect((await client(...way)).status).to.be.oneOf([400, 404]);
    expect(network.company.requests).to.deep.equal([]);
  });

  it("are reached directly where they are on the machine itself", async () => {
    const registry = await network.startRegistry({ hostname: "127.0.0.1" });
    const client = connectRegistry(await network.startProxy(), registry);
    expect((await client("GET", "app/tags/list")).status).to.equal(404);
    expect(network.company.requests).to.deep.equal([]);
  });

  it("have to show a certificate of their own, also where they are at an IP address", async () => {
    const hostname = "93.184.216.34";
    const registry = await network.startRegistry({ hostname, tls: true });
    const client = connectRegistry(await network.startProxy(), registry);
    for (const way of bothWays) expect((await client(...way)).status).to.be.oneOf([400, 404]);
    const { authority, ...keys } = await makeKeys("127.0.0.1"); // the address of the company's proxy
    const other = await network.startRegistry({ hostname, tls: keys });
    const proxy = await network.startProxy();
    proxy.connect("it", other.url, { caCertificates: [authority] });
    for (const way of bothWays) {
      const answer = await clientOf(proxy, "it")(...way);
      expect(answer.status).to.be.oneOf([502, 503]);
      expect(errorIn(answer).message).to.contain("certificate");
    }
    expect(other.requests).to.deep.equal([]);
  });

  it("get one login of the company's at a time until it is known, and a changed one at once", async () => {
    network.company.login = companyLogin;
    network.login = "build:wrong";
    const registry = await network.startRegistry({ tls: true });
    const client = connectRegistry(await network.startProxy(), registry);
    const pullAll = async (): Promise<number[]> => {
      const clients = Array.from({ length: 24 }, () => client("GET", "app/tags/list"));
      return (await Promise.all(clients)).map(({ status }) => status);
    };
    const failures = (): number =>
      network.company.requests.filter(({ status }) => status === 407).length;
    for (let second = 0; second < 300; second += 1) {
      network.clockMs = second * 1000;
      if (second % 10 === 0) expect(new Set(await pullAll())).to.deep.equal(new Set([503]));
    }
    expect(failures()).to.be.within(2, 4);
    network.login = companyLogin;
    network.clockMs += 3_000;
    expect(new Set(await pullAll())).to.deep.equal(new Set([404]));
  });
});
