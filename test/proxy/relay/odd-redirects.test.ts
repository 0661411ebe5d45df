import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { expect } from "chai";
import { createProbe } from "../../../src/upstream/probe.ts";
import { createUpstreams } from "../../../src/upstream/upstream.ts";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob } from "../../support/fake-registry-content.ts";
import { noise, sha256 } from "../../support/oci-image.ts";
import { oddRegistry } from "../../support/registries/odd-registries.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const credential = { username: "alice", password: "secret-of-alice" };

describe("a registry that redirects oddly", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const undo = cleanup();
  let registry: FakeRegistry;
  let other: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;
  const blob = noise("blob", 200_000);
  const digest = sha256(blob);

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    other = resources.add(await startFakeRegistry()); // another port of the same host
    proxy = resources.add(await startTestProxy());
    proxy.connect("it", registry.url, { credential });
    client = clientOf(proxy, "it");
  });
  beforeEach(() => {
    for (const host of [registry, other]) {
      host.requests.length = 0;
      addBlob(host.repository("app"), blob);
    }
  });
  afterEach(undo.stop);
  after(resources.stop);

  const toOther = (query = "") =>
    registry.on("* blob", ({ path, send }) =>
      send(307, { Location: `${other.url}${path}${query}` }),
    );
  const paths = (host: FakeRegistry): string[] =>
    host.requests.map(({ method, url }) => `${method} ${url}`);

  it(oddRegistry("same-host-redirect"), async () => {
    let signature = 0;
    const signed = registry.on("* blob", ({ path, send }) => {
      signature += 1; // another one each time
      send(307, { Location: `${other.url}${path}?sig=${signature}` });
    });
    const answer = await client("GET", `app/blobs/${digest}`);
    signed();
    expect(answer.status).to.equal(200);
    expect(answer.body.equals(blob)).to.equal(true);
    expect(paths(other)).to.deep.equal([`GET /v2/app/blobs/${digest}?sig=1`]);

    undo.defer(toOther());
    expect((await client("HEAD", `app/blobs/${digest}`)).status).to.equal(200);
    expect(other.requests.map(({ headers }) => headers.authorization)).to.deep.equal([
      undefined,
      undefined,
    ]);
  });

  it(`${oddRegistry("same-host-redirect")}; and it goes on there, by a relative redirect`, async () => {
    undo.defer(toOther());
    undo.defer(
      other.on("* blob", ({ path, query, send, next }) =>
        query.has("moved") ? next() : send(307, { Location: `${path}?moved` }),
      ),
    );
    expect((await client("GET", `app/blobs/${digest}`)).status).to.equal(200);
    expect(paths(other)).to.have.lengthOf(2);
  });

  it(oddRegistry("wrong-own-address"), async () => {
    undo.defer(
      registry.on("GET manifest", ({ send }) =>
        send(307, { Location: `https://127.0.0.1:1/v2/app/blobs/${digest}` }),
      ),
    );
    const answer = await client("GET", "app/manifests/moved");
    expect(answer.body.equals(blob)).to.equal(true);
    expect(registry.requests.at(-1)?.headers.authorization).to.match(/^Bearer /);
  });

  it(`${oddRegistry("wrong-own-address")}; or with another query and the wrong scheme at its own port`, async () => {
    undo.defer(
      registry.on("* blob", ({ path, query, send, next }) =>
        query.has("moved")
          ? next()
          : send(307, { Location: `https://${registry.host}${path}?moved` }),
      ),
    );
    expect((await client("GET", `app/blobs/${digest}`)).status).to.equal(200);
  });

  it(oddRegistry("https-to-http"), async () => {
    const secure = undo.add(await startFakeRegistry({ auth: "basic", tls: true }));
    proxy.connect("secure", secure.url, { credential, caCertificates: [secure.ca ?? ""] });
    secure.on("* blob", ({ path, send }) => send(307, { Location: `${other.url}${path}` }));
    const answer = await clientOf(proxy, "secure")("GET", `app/blobs/${digest}`);
    expect(answer.status).to.equal(502);
    expect(errorIn(answer).message).to.contain("from https to http");
    expect(other.requests).to.deep.equal([]);
  });

  it(oddRegistry("utf8-location"), async () => {
    const utf8 = Buffer.from("größe").toString("latin1"); // as node:http wants the bytes of a header
    for (const [letters, encoded] of [
      [utf8, "gr%C3%B6%C3%9Fe"],
      ["gr\xf6\xdfe", "gr%F6%DFe"],
    ] as const) {
      const redirect = registry.on("* blob", ({ send }) =>
        send(307, {
          Location: `${other.url}/v2/app/blobs/${digest}?at=/${letters}/x&name=${letters}`,
        }),
      );
      const answer = await client("GET", `app/blobs/${digest}`);
      redirect();
      expect(answer.body.equals(blob)).to.equal(true);
      expect(other.requests.pop()?.url.toUpperCase()).to.equal(
        `/v2/app/blobs/${digest}?at=/${encoded}/x&name=${encoded}`.toUpperCase(),
      );

      const list = registry.on("GET tags", ({ send }) =>
        send(200, { Link: `</v2/app/tags/list?n=2&last=${letters}>; rel="next"` }),
      );
      const page = await client("GET", "app/tags/list");
      list();
      expect(String(page.headers.link).toUpperCase()).to.contain(`LAST=${encoded.toUpperCase()}>`);

      const upload = registry.on("POST *", ({ send }) =>
        send(202, { Location: `/up/${letters}?_state=${letters}` }),
      );
      const begun = await client("POST", "app/blobs/uploads/");
      upload();
      await client("PATCH", String(begun.headers.location), { body: "x" });
      expect(registry.requests.at(-1)?.url.toUpperCase()).to.equal(
        `/up/${encoded}?_state=${encoded}`.toUpperCase(),
      );
    }
  });

  it(oddRegistry("many-redirects"), async () => {
    const hops = (count: number) =>
      registry.on("* blob", ({ path, query, send, next }) => {
        const hop = Number(query.get("hop") ?? 0);
        return hop === count ? next() : send(307, { Location: `${path}?hop=${hop + 1}` });
      });
    const seven = hops(7);
    expect((await client("GET", `app/blobs/${digest}`)).status).to.equal(200);
    seven();
    undo.defer(hops(1_000));
    const answer = await client("GET", `app/blobs/${digest}`);
    expect(answer.status).to.equal(502);
    expect(errorIn(answer).message).to.contain("10 redirects were followed");
  });

  it(oddRegistry("redirect-to-registry"), async () => {
    const guarded = undo.add(await startFakeRegistry({ auth: "bearer" }));
    undo.defer(
      registry.on("GET *", ({ path, send }) => send(307, { Location: `${guarded.url}${path}` })),
    );
    for (const path of ["app/manifests/1", "app/tags/list", `app/blobs/${digest}`]) {
      const answer = await client("GET", path);
      expect(answer.status).to.equal(502);
      const { message, detail } = errorIn(answer);
      expect(message).to.contain(`redirects to ${guarded.host}, which requires a login of its own`);
      expect(message).to.not.contain("keeps its blobs");
      expect(detail).to.contain(`spec.address is ${guarded.url}`);
    }
    undo.defer(guarded.on("GET *", ({ fail }) => fail(400, "NAME_INVALID"), "before auth"));
    const refused = await client("GET", "app/manifests/1");
    expect(errorIn(refused).message).to.equal(
      `${registry.host} redirects to ${guarded.host}, which answered 400`,
    );
  });
});

describe("a registry that redirects from http to https", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const hostname = "127.31.41.59"; // loopback, whose ports 80 and 443 no other test uses
  let secure: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;
  const blob = noise("blob", 200_000);
  const digest = sha256(blob);
  const heard: (string | undefined)[] = [];

  before(async function () {
    const plain = createServer((request, response) => {
      heard.push(request.headers.authorization);
      request.resume();
      response.writeHead(308, { location: `https://${hostname}${request.url}` }).end();
    });
    resources.defer(() => plain.close().closeAllConnections());
    if (!(await listens(plain, 80))) this.skip();
    secure = resources.add(
      await startFakeRegistry({ auth: "bearer", tls: true, hostname, port: 443 }),
    );
    proxy = resources.add(await startTestProxy());
    const caCertificates = [secure.ca ?? ""];
    proxy.connect("it", `http://${hostname}`, { credential, caCertificates });
    client = clientOf(proxy, "it");
    addBlob(secure.repository("app"), blob);
  });
  after(resources.stop);

  it(oddRegistry("http-to-https"), async () => {
    expect((await client("GET", `app/blobs/${digest}`)).body.equals(blob)).to.equal(true);
    const pushed = noise("pushed", 300_000);
    for (const style of ["relative", "absolute"] as const) {
      secure.uploadLocation = style;
      const begun = await client("POST", `${style}/blobs/uploads/`);
      expect(begun.status).to.equal(202);
      const path = `${begun.headers.location}&digest=${sha256(pushed)}`;
      const put = await client("PUT", path, { body: pushed });
      expect(put.status).to.equal(201);
      expect(put.headers.location).to.equal(`${client.base}${style}/blobs/${sha256(pushed)}`);
      expect(secure.repository(style).blobs.get(sha256(pushed))?.equals(pushed)).to.equal(true);
    }
    const manifest = JSON.stringify({ config: { digest }, layers: [] });
    const put = await client("PUT", "app/manifests/1", { body: manifest });
    expect(put.status).to.equal(201);
    expect((await client("GET", "app/tags/list?n=1")).status).to.equal(200);
    expect((await client("DELETE", "app/manifests/1")).status).to.equal(202);
  });

  it("to another port, gets no login there", async () => {
    const elsewhere = resources.add(
      await startFakeRegistry({ auth: "basic", tls: true, hostname }),
    );
    const stop = secure.on("* blob", ({ path, send }) =>
      send(308, { Location: `${elsewhere.url}${path}` }),
    );
    const upstreamCa = [secure.ca ?? "", elsewhere.ca ?? ""];
    proxy.connect("both", `http://${hostname}`, { credential, caCertificates: upstreamCa });
    const answer = await clientOf(proxy, "both")("GET", `app/blobs/${digest}`);
    stop();
    expect(answer.status).to.equal(502);
    expect(elsewhere.requests.map(({ headers }) => headers.authorization)).to.deep.equal([
      undefined,
    ]);
  });

  it("and at once back, is asked no more in clear text", async () => {
    const stop = secure.on("* blob", ({ path, send }) =>
      send(308, { Location: `http://${hostname}${path}` }),
    );
    const answer = await client("GET", `app/blobs/${digest}`);
    stop();
    expect(answer.status).to.equal(502);
    expect(errorIn(answer).message).to.contain("from https to http");
  });

  it("has a condition that says which address to write", async () => {
    const upstreams = createUpstreams(10_000);
    resources.defer(() => upstreams.destroy());
    const connector = proxy.connect("probed", `http://${hostname}`, { credential });
    const secrets = { credential, caCertificates: [secure.ca ?? ""] };
    const { signal } = new AbortController();
    const { liveness } = await createProbe(upstreams)(connector, secrets, signal);
    expect(liveness.ok).to.equal(false);
    expect(liveness.message).to.contain(`write https://${hostname} in spec.address`);
  });

  async function listens(server: Server, port: number): Promise<boolean> {
    server.listen(port, hostname);
    const [error] = await Promise.race([
      once(server, "listening"),
      once(server, "error").catch((reason: Error) => [reason]),
    ]).catch((reason: Error) => [reason]);
    return error === undefined && (server.address() as AddressInfo | null)?.port === port;
  }
});
