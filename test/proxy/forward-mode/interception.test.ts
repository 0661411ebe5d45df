import { once } from "node:events";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from "node:tls";
import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob } from "../../support/fake-registry-content.ts";
import { storeBlobsIn } from "../../support/hostile-downloads.ts";
import { noise, sha256 } from "../../support/oci-image.ts";
import { statusesIn } from "../../support/raw-request.ts";
import { sealedUpload } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";
import { askConnect, connectTlsInside, proxyAuth } from "./connect-client.ts";

const login = { username: "alice", password: "secret-of-alice" };

describe("an intercepted connection of the forward proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let token: string;
  let credential: string;
  let to: string;

  beforeEach(async () => {
    registry = resources.add(
      await startFakeRegistry({ auth: "bearer", tls: true, hostname: "harbor.test" }),
    );
    to = registry.host;
    proxy = resources.add(
      await startTestProxy({
        lookup: (_name, _options, callback) =>
          callback(null, [{ address: "127.0.0.1", family: 4 }]),
      }),
    );
    proxy.connect("harbor", registry.url, {
      credential: login,
      caCertificates: [registry.ca ?? ""],
    });
    token = proxy.token("harbor");
    credential = proxyAuth(token, "harbor");
    registry.repository("app").tags.set("1", "x");
  });
  afterEach(resources.stop);

  async function open(options: ConnectionOptions & { eager?: boolean } = {}): Promise<TLSSocket> {
    const socket = await connectTlsInside(proxy, { to, credential }, options);
    resources.defer(() => socket.destroy());
    return socket;
  }
  const failure = async (options: ConnectionOptions): Promise<string> =>
    open(options).then(
      () => "none",
      (error: NodeJS.ErrnoException) => error.code ?? error.message,
    );
  /** Sends bytes, and waits for the end of what comes. */
  async function say(socket: TLSSocket, bytes: string): Promise<string> {
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
    });
    socket.on("error", () => undefined);
    const closed = once(socket, "close");
    socket.write(bytes);
    await closed;
    return text;
  }
  const get = (path: string, ...headers: readonly string[]): string =>
    [`GET ${path} HTTP/1.1`, `Host: ${to}`, ...headers, "", ""].join("\r\n");
  const last = "Connection: close";
  const tags = "/v2/app/tags/list";
  /** Everything that the registry was asked, its own token server aside. */
  const asked = () => registry.requests.filter(({ target }) => target.kind !== "token");

  it("pulls and pushes by the paths of the registry itself, with no login of its client", async () => {
    const blob = noise("blob", 100_000);
    const digest = addBlob(registry.repository("app"), blob);
    const socket = await open();
    const ask = async (
      method: string,
      path: string,
      body?: Buffer,
    ): Promise<{
      status: number | undefined;
      headers: IncomingMessage["headers"];
      body: Buffer;
    }> => {
      const request = httpRequest({
        createConnection: () => socket,
        method,
        path,
        headers: { host: to, connection: "keep-alive" },
      });
      request.end(body);
      const [answer] = (await once(request, "response")) as [IncomingMessage];
      const chunks = await answer.toArray();
      return { status: answer.statusCode, headers: answer.headers, body: Buffer.concat(chunks) };
    };
    expect(await ask("GET", "/v2/")).to.include({ status: 200 });
    const pulled = await ask("GET", `/v2/app/blobs/${digest}`);
    expect(pulled.body.equals(blob)).to.equal(true);
    const begun = await ask("POST", "/v2/new/app/blobs/uploads/");
    const location = begun.headers.location ?? "";
    expect(location).to.match(sealedUpload);
    const pushed = await ask("PUT", `${location}&digest=${digest}`, blob);
    expect(pushed.status).to.equal(201);
    expect(pushed.headers.location).to.equal(`/v2/new/app/blobs/${digest}`);
    expect([...registry.repository("new/app").blobs.keys()]).to.deep.equal([sha256(blob)]);
  });

  it("pulls what the registry keeps elsewhere, without a login and without a way there of its own", async () => {
    const storage = resources.add(await startFakeRegistry({ tls: true, hostname: "storage.test" }));
    proxy.connect("harbor", registry.url, {
      credential: login,
      caCertificates: [registry.ca ?? "", storage.ca ?? ""],
      params: [{ name: "allowedRedirectHosts", value: "storage.test" }],
    });
    const blob = noise("elsewhere", 50_000);
    const digest = addBlob(registry.repository("app"), blob);
    storeBlobsIn(storage, registry);
    const text = await say(await open(), get(`/v2/app/blobs/${digest}`, last));
    expect(statusesIn(text.slice(0, 20))).to.deep.equal([200]);
    expect(text.endsWith(blob.toString("latin1"))).to.equal(true);
    expect(text.slice(0, text.indexOf("\r\n\r\n"))).to.not.match(/location:|storage\.test/i);
    expect(storage.requests).to.have.length(1);
    expect(storage.requests[0]?.headers).to.not.have.any.keys("authorization", "cookie");
  });

  it("has a certificate for that host alone, and speaks HTTP/1.1", async () => {
    const socket = await open({ ALPNProtocols: ["h2", "http/1.1"] });
    expect(socket.getPeerCertificate().subjectaltname).to.equal("DNS:harbor.test");
    expect(socket.alpnProtocol).to.equal("http/1.1");
    const [cert] = [socket.getPeerCertificate()];
    const days = (Date.parse(cert.valid_to) - Date.now()) / 86_400_000;
    expect(days).to.be.within(1, 31);
  });

  it("is none with another name in the handshake, and none without HTTP/1.1", async () => {
    for (const servername of ["evil.test", "harbor.test.evil.test", "registry-1.docker.io"]) {
      expect(await failure({ servername, rejectUnauthorized: false })).to.not.equal("none");
    }
    expect(await failure({ ALPNProtocols: ["h2"] })).to.match(/NO_APPLICATION_PROTOCOL|ECONNRESET/);
    expect(await failure({ maxVersion: "TLSv1.1", ciphers: "ALL:@SECLEVEL=0" })).to.not.equal(
      "none",
    );
    expect(registry.requests).to.deep.equal([]);
    expect((await open()).authorized).to.equal(true);
  });

  for (const [what, headers] of [
    ["another host", ["Host: evil.test"]],
    ["another port of the host", ["Host: harbor.test:1"]],
    ["another host in its target", []],
  ] as const) {
    it(`has no request for ${what}`, async () => {
      const text = await say(
        await open(),
        headers.length === 0
          ? get("https://evil.test/v2/app/tags/list", last)
          : `GET ${tags} HTTP/1.1\r\n${headers[0]}\r\n${last}\r\n\r\n`,
      );
      expect(statusesIn(text)).to.deep.equal([headers.length === 0 ? 400 : 421]);
      expect(registry.requests).to.deep.equal([]);
    });
  }

  for (const [what, bytes] of [
    ["preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    ["other CONNECT", "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n"],
    [
      "request with two hosts",
      `GET ${tags} HTTP/1.1\r\nHost: harbor.test\r\nHost: evil.test\r\n${last}\r\n\r\n`,
    ],
  ] as const) {
    it(`has no ${what} in it`, async () => {
      const text = await say(await open(), bytes);
      expect(statusesIn(text)).to.not.include(200);
      expect(registry.requests).to.deep.equal([]);
    });
  }

  it("has no plain HTTP in it, before or after the answer to CONNECT", async () => {
    for (const early of ["", get(tags, last)]) {
      const connection = resources.add(await askConnect(proxy, { to, credential, early }));
      if (early === "") connection.send(get(tags, last));
      await connection.closed;
      expect(statusesIn(connection.received()).slice(1)).to.not.include(200);
    }
    expect(registry.requests).to.deep.equal([]);
  });

  it("may begin before the CONNECT is answered", async () => {
    const text = await say(await open({ eager: true }), get(tags, last));
    expect(statusesIn(text)).to.deep.equal([200]);
  });

  it("may have a request behind the other, and answers in order", async () => {
    const undo = registry.on("GET tags", async ({ next }) => {
      await sleep(50);
      await next();
    });
    const text = await say(await open(), get(tags) + get("/v2/none/tags/list", last));
    undo();
    expect(statusesIn(text)).to.deep.equal([200, 404]);
  });

  it("may lie in TLS to the proxy itself", async () => {
    const ca = proxy.surroundings.authority.certificate;
    const outer = await askConnect(proxy, { to, credential, scheme: "https" });
    expect(outer.status).to.equal(200);
    const inner = await outer.startTls({ ca, servername: "harbor.test" });
    resources.add(inner);
    inner.send(get(tags, last));
    await inner.waitFor(/"tags":\["1"\]/);
  });

  it("shows the registry the connector's login, and nothing of the client's", async () => {
    const mine = [
      `Authorization: ${credential}`,
      `Proxy-Authorization: ${credential}`,
      "Cookie: a=b",
    ];
    const text = await say(await open(), get(tags, ...mine, last));
    expect(statusesIn(text)).to.deep.equal([200]);
    const all = JSON.stringify(registry.requests);
    expect(all).to.not.include(token);
    expect(all).to.not.include(Buffer.from(token).toString("base64").slice(4, 20));
    for (const { headers } of asked()) {
      expect(headers).to.not.have.any.keys("proxy-authorization", "cookie");
    }
    expect(text).to.not.include("secret-of-alice");
  });

  it("sends no login to what of the host is no registry, and there as to any host", async () => {
    const text = await say(await open(), get("/api/v2.0/projects", last));
    expect(statusesIn(text)).to.deep.equal([403]);
    expect(text).to.include("an internal address");
    expect(registry.requests).to.deep.equal([]);
  });

  it("ends once the token is none any more, or the connector is gone, or elsewhere", async () => {
    const { identities, connectors } = proxy.surroundings;
    const changes: readonly [() => void, RegExp][] = [
      [() => identities.delete(token), /HTTP\/1.1 403/],
      [() => connectors.delete("team-a/harbor"), /HTTP\/1.1 403/],
      [() => proxy.connect("harbor", "https://elsewhere.test"), /HTTP\/1.1 403/],
    ];
    for (const [change, expected] of changes) {
      const socket = await open();
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk;
      });
      socket.write(get(tags));
      await eventually(
        () => /HTTP\/1.1 200 .*"tags":\["1"\]/s.test(text),
        () => text,
      );
      const before = registry.requests.length;
      const identity = identities.get(token);
      const connector = connectors.get("team-a/harbor");
      const closed = once(socket, "close");
      change();
      text = "";
      socket.write(get(tags));
      await closed;
      expect(text).to.match(expected);
      expect(registry.requests).to.have.length(before);
      if (identity !== undefined) identities.set(token, identity);
      if (connector !== undefined) connectors.set("team-a/harbor", connector);
    }
  });

  it("is closed when the proxy stops, once its request is answered", async () => {
    registry.on("GET tags", async ({ next }) => {
      await sleep(200);
      await next();
    });
    const [idle, busy] = [await open(), await open()];
    const answer = say(busy, get(tags));
    await eventually(
      () => asked().some(({ target }) => target.kind === "tags"),
      () => "nothing has arrived",
    );
    const idleClosed = once(idle, "close");
    await proxy.stop(15_000);
    await idleClosed;
    expect(statusesIn(await answer)).to.deep.equal([200]);
  });

  it("goes to the connector with the longest base path, and then to the one that is named first", async () => {
    const ca = [registry.ca ?? ""];
    for (const name of ["first", "second"]) {
      const own = { username: "alice", password: "secret-of-alice" };
      proxy.connect(name, registry.url, { credential: own, caCertificates: ca });
    }
    proxy.connect("deep", `${registry.url}/base`, { caCertificates: ca });
    const names = ["second", "deep", "first"];
    const header = proxyAuth(proxy.token(...names), ...names);
    const socket = await connectTlsInside(proxy, { to, credential: header });
    resources.defer(() => socket.destroy());
    await say(socket, get("/base/v2/app/tags/list") + get(tags, last));
    const used = proxy.surroundings.secretReads.map(({ connector }) => connector);
    expect([...new Set(used)]).to.deep.equal(["deep", "second"]);
  });

  it("goes on after handshakes that fail or are cut", async () => {
    for (let count = 0; count < 3; count++) {
      const { stop } = await askConnect(proxy, { to, credential });
      stop();
      const raw = connect(Number(proxy.http.split(":")[1]), "127.0.0.1");
      const cut = connectTls({ socket: raw });
      cut.on("error", () => undefined);
      raw.resetAndDestroy();
    }
    expect(statusesIn(await say(await open(), get(tags, last)))).to.deep.equal([200]);
  });
});
