import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { expect } from "chai";
import { createAuthority, createLeafIssuer } from "../../../src/certificate-authority.ts";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { noise } from "../../support/oci-image.ts";
import {
  type PlainRequestOptions,
  type PlainResponse,
  plainRequest,
} from "../../support/plain-request.ts";
import { rawRequest, statusesIn } from "../../support/raw-request.ts";
import { basicAuth, errorIn, sealedUpload } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";
import { connectTlsInside, proxyAuth } from "./connect-client.ts";

interface Seen {
  readonly request: IncomingMessage;
  readonly body: Buffer;
}

describe("a request in absolute form to the forward proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let token: string;
  let credential: string;
  /** What the other host has got. */
  let seen: Seen[];
  let answer: (response: ServerResponse) => void;

  beforeEach(async () => {
    seen = [];
    answer = (response) => void response.end("hello");
    registry = resources.add(await startFakeRegistry({ auth: "bearer", hostname: "harbor.test" }));
    proxy = resources.add(
      await startTestProxy({
        tunnels: {
          any: false,
          domains: [],
          networks: [],
          neverNetworks: [],
          hosts: [{ host: "other.test", port: undefined }],
        },
        lookup: (_name, _options, callback) =>
          callback(null, [{ address: "127.0.0.1", family: 4 }]),
      }),
    );
    const login = { username: "alice", password: "secret-of-alice" };
    proxy.connect("harbor", registry.url, { credential: login });
    token = proxy.token("harbor");
    credential = proxyAuth(token, "harbor");
    registry.repository("app").tags.set("1", "x");
  });
  afterEach(resources.stop);

  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    void request.toArray().then((chunks) => {
      seen.push({ request, body: Buffer.concat(chunks) });
      answer(response);
    });
  };
  async function otherHost(): Promise<string> {
    const server = createServer(listener).listen(0, "127.0.0.1");
    await once(server, "listening");
    resources.defer(() => server.close());
    return `other.test:${(server.address() as AddressInfo).port}`;
  }
  const ask = (
    target: string,
    { headers, ...options }: PlainRequestOptions = {},
  ): Promise<PlainResponse> =>
    plainRequest(`http://${proxy.http}/`, {
      target,
      ...options,
      headers: { "proxy-authorization": credential, ...headers },
    });

  it("to a connector's registry goes there, with its login", async () => {
    const found = await ask(`${registry.url}/v2/app/tags/list`);
    expect(JSON.parse(found.body.toString())).to.deep.equal({ name: "app", tags: ["1"] });
    const begun = await ask(`${registry.url}/v2/app/blobs/uploads/`, { method: "POST" });
    expect(begun.headers.location).to.match(sealedUpload);
    expect(begun.headers.location).to.match(/^\/v2\/app\//);
    registry.uploadLocation = "absolute";
    const again = await ask(`${registry.url}/v2/app/blobs/uploads/`, { method: "POST" });
    const location = String(again.headers.location);
    expect(location.startsWith(`${registry.url}/v2/app/blobs/uploads/`)).to.equal(true, location);
    expect((await ask(location, { method: "PATCH", body: "x" })).status).to.equal(202);
    expect(JSON.stringify(registry.requests)).to.not.include(token);
  });

  it("is answered 407 without a credential, and 400 where it is for https", async () => {
    const to = await otherHost();
    const stranger = await ask(`http://${to}/`, { headers: { "proxy-authorization": "" } });
    expect(stranger.status).to.equal(407);
    expect(stranger.headers["proxy-authenticate"]).to.match(/^Basic /);
    const secure = await ask(`https://${to}/`);
    expect(errorIn(secure)).to.include({ code: "UNSUPPORTED" });
    expect(secure.status).to.equal(400);
    expect(seen).to.deep.equal([]);
  });

  it("to another host is passed on as it is, but for what is between client and proxy", async () => {
    const to = await otherHost();
    answer = (response) =>
      void response
        .writeHead(201, "Made", [
          "Set-Cookie",
          "a=b",
          "Set-Cookie",
          "c=d",
          "X-Odd",
          "1",
          "Connection",
          "x-odd",
        ])
        .end("made");
    const body = noise("body", 300_000);
    const made = await ask(`http://${to}/a//b/../c%2F?x=1`, {
      method: "POST",
      body,
      headers: {
        authorization: "Bearer of-the-client",
        cookie: "mine",
        "x-hop": "1",
        te: "trailers",
        connection: "x-hop, keep-alive",
        "proxy-connection": "keep-alive",
      },
    });
    expect(made).to.include({ status: 201, complete: true });
    expect(made.headers["set-cookie"]).to.deep.equal(["a=b", "c=d"]);
    expect(made.headers).to.not.have.property("x-odd");
    const [{ request, body: got } = { request: undefined, body: Buffer.alloc(0) }] = seen;
    expect(got.equals(body)).to.equal(true);
    expect(request?.url).to.equal("/a//b/../c%2F?x=1");
    expect(request?.headers).to.include({
      host: to,
      authorization: "Bearer of-the-client",
      cookie: "mine",
    });
    expect(request?.headers).to.not.have.any.keys(
      "proxy-authorization",
      "proxy-connection",
      "x-hop",
      "te",
    );
  });

  describe("to another host takes no token of a volume along", () => {
    const jwt = (claims: object): string =>
      [
        "eyJhbGciOiJFZERTQSJ9",
        Buffer.from(JSON.stringify(claims)).toString("base64url"),
        "c2ln",
      ].join(".");
    const ours = { iss: "oci-connector", aud: "connectors-proxy" };
    const own = jwt({ ...ours, jti: "1" });
    const next = jwt({ ...ours, aud: ["connectors-proxy"], jti: "2" });
    const foreign = jwt({ iss: "https://ci.example.com", aud: "connectors-proxy" });
    let to: string;
    beforeEach(async () => {
      to = await otherHost();
      const identity = proxy.surroundings.identities.get(token);
      if (identity !== undefined) proxy.surroundings.identities.set(own, identity);
      credential = proxyAuth(own, "harbor");
    });

    const shown: readonly (readonly [form: string, header: string, value: string])[] = [
      ["behind Bearer", "authorization", `Bearer ${own}`],
      ["as the password of Basic", "authorization", basicAuth(own)],
      ["as the user of Basic", "authorization", basicAuth("", own)],
      ["the volume's next one", "authorization", `Bearer ${next}`],
      ["the volume's next one, in Basic", "authorization", basicAuth(next)],
      ["in a cookie", "cookie", `a=b; token=${own}`],
      ["in a header of somebody's own", "x-registry-auth", basicAuth(own).slice("Basic ".length)],
      ["percent-encoded", "x-token", encodeURIComponent(own).replaceAll(".", "%2E")],
      ["in a URL", "referer", `http://other.test/?token=${own}`],
    ];
    for (const [form, header, value] of shown) {
      it(`${form}: ${header}`, async () => {
        expect((await ask(`http://${to}/`, { headers: { [header]: value } })).status).to.equal(200);
        expect(seen[0]?.request.headers).to.not.have.property(header);
      });
    }

    it("but a token of somebody else's", async () => {
      const headers = { authorization: `Bearer ${foreign}`, cookie: basicAuth(foreign) };
      await ask(`http://${to}/`, { headers });
      expect(seen[0]?.request.headers).to.include(headers);
    });

    it("and is refused with one in its URL", async () => {
      for (const path of [
        `/?token=${own}`,
        `/${next}`,
        `/?a=${encodeURIComponent(basicAuth(own))}`,
      ]) {
        const refused = await ask(`http://${to}${path}`);
        expect(refused.status).to.equal(400);
        expect(errorIn(refused).message).to.include("token of a volume");
      }
      expect(seen).to.deep.equal([]);
      expect((await ask(`http://${to}/?token=${foreign}`)).status).to.equal(200);
    });
  });

  describe("in a transfer coding that the proxy does not undo", () => {
    const port = (): number => Number(proxy.http.split(":")[1]);
    const post = (target: string, coding: string): string =>
      `POST ${target} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: ${credential}\r\nConnection: close\r\n` +
      `Transfer-Encoding: ${coding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n`;

    for (const coding of [
      "gzip, chunked",
      "deflate,chunked",
      "gzip,\tchunked",
      "chunked, chunked",
    ]) {
      it(`is refused: ${JSON.stringify(coding)}`, async () => {
        const to = await otherHost();
        for (const target of [`http://${to}/`, `${registry.url}/v2/app/blobs/uploads/`]) {
          const { text } = await rawRequest({ port: port() }, post(target, coding));
          expect(statusesIn(text)[0], target).to.be.oneOf([400, 501]);
        }
        expect(seen).to.deep.equal([]);
        expect(registry.requests).to.deep.equal([]);
      });
    }

    it("is passed on in chunks, however they are written", async () => {
      const to = await otherHost();
      const { text } = await rawRequest({ port: port() }, post(`http://${to}/`, "Chunked"));
      expect(statusesIn(text)).to.deep.equal([200]);
      expect(String(seen[0]?.body)).to.equal("abc");
    });

    it("is answered 502 where the host's response is", async () => {
      const to = await otherHost();
      for (const coding of ["gzip, chunked", "gzip"]) {
        answer = ({ socket }) =>
          void socket?.end(
            `HTTP/1.1 200 OK\r\nTransfer-Encoding: ${coding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
          );
        const refused = await ask(`http://${to}/`);
        expect(refused.status, coding).to.equal(502);
        expect(errorIn(refused).message).to.include("transfer coding");
      }
    });
  });

  it("goes by its target, not by its Host", async () => {
    const to = await otherHost();
    await ask(`http://${to}/`, { headers: { host: "harbor.test" } });
    expect(seen[0]?.request.headers.host).to.equal(to);
    expect(registry.requests).to.deep.equal([]);
  });

  it("is not passed on where the policy has it so, nor where nobody answers", async () => {
    for (const host of ["elsewhere.test", "127.0.0.1:1", "[::1]", "169.254.169.254"]) {
      const refused = await ask(`http://${host}/`);
      expect(refused.status, host).to.equal(403);
      expect(errorIn(refused).detail).to.include("TUNNEL");
    }
    expect((await ask("http://other.test:1/")).status).to.equal(502);
  });

  it("with an answer that is cut is cut, too", async () => {
    const to = await otherHost();
    answer = (response) => {
      response.writeHead(200, { "content-length": "10" });
      response.write("12345");
      setTimeout(() => response.destroy(), 20);
    };
    expect(await ask(`http://${to}/`)).to.include({ status: 200, complete: false });
  });

  it("frames no second request out of a first", async () => {
    const to = await otherHost();
    const smuggled = `POST http://${to}/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: ${credential}\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n`;
    const { text } = await rawRequest({ port: Number(proxy.http.split(":")[1]) }, smuggled);
    expect(statusesIn(text)).to.deep.equal([400]);
    expect(seen).to.deep.equal([]);
  });

  describe("inside of TLS", () => {
    it("to the registry's host, but none of its API, goes there without a login, where the policy has it so", async () => {
      const authority = await createAuthority("of the host", new Date());
      const { certificate, privateKey } = await (await createLeafIssuer(authority))(
        "other.test",
        new Date(),
      );
      const server = createTlsServer({ cert: certificate, key: privateKey }, listener);
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      resources.defer(() => server.close());
      const to = `other.test:${(server.address() as AddressInfo).port}`;
      const login = { username: "alice", password: "secret-of-alice" };
      proxy.connect("harbor", `https://${to}`, {
        credential: login,
        caCertificates: [authority.certificate],
      });
      const socket = await connectTlsInside(proxy, { to, credential });
      socket.write(`GET /charts/index.yaml HTTP/1.1\r\nHost: ${to}\r\nConnection: close\r\n\r\n`);
      const text = String(Buffer.concat(await socket.toArray()));
      expect(statusesIn(text)).to.deep.equal([200]);
      expect(text).to.match(/\r\n\r\nhello$|hello\r\n0/);
      expect(seen[0]?.request.url).to.equal("/charts/index.yaml");
      expect(seen[0]?.request.headers).to.not.have.property("authorization");
    });
  });
});
