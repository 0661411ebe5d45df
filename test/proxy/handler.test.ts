import { expect } from "chai";
import fc from "fast-check";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import type { TestImage } from "../support/oci-image.ts";
import { plainRequest } from "../support/plain-request.ts";
import { openRaw, statusesIn } from "../support/raw-request.ts";
import { basicAuth, clientOf, errorIn, type TestClient } from "./test-client.ts";
import { startTestProxy, type TestProxy } from "./test-proxy.ts";

describe("the proxy's handler, asked over HTTP", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;
  let image: TestImage;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    image = addImage(registry.repository("app"), "1");
    proxy = resources.add(await startTestProxy());
    const credential = { username: "alice", password: "secret-of-alice" };
    proxy.connect("harbor", registry.url, { credential });
    proxy.connect("other", registry.url, { credential });
    client = clientOf(proxy, "harbor");
  });
  beforeEach(() => {
    addImage(registry.repository("app"), "1");
    registry.requests.length = 0;
    proxy.surroundings.away = undefined;
  });
  after(resources.stop);

  const ask = (target: string, headers: Record<string, string> = {}, method = "GET") =>
    plainRequest(`http://${proxy.http}/`, { method, target, headers });

  describe("who asks", () => {
    const paths = ["/v2/", "/v2", "app/tags/list", "app/manifests/1", "app/blobs/uploads/"];
    for (const path of paths) {
      it(`has to say so: ${path}`, async () => {
        const target = path.startsWith("/") ? path : client.base + path;
        const answer = await ask(target, {}, path.endsWith("uploads/") ? "POST" : "GET");
        expect(answer.status).to.equal(401);
        const challenges = answer.rawHeaders.filter((name) => /^www-authenticate$/i.test(name));
        expect(challenges).to.have.length(1);
        expect(answer.headers["www-authenticate"]).to.match(/^Basic realm="[^",]+"$/);
        expect(errorIn(answer)).to.include({ code: "UNAUTHORIZED" });
        expect(errorIn(answer).detail).to.contain("config.json");
        expect(registry.requests).to.deep.equal([]);
      });
    }

    it("may be any user with a token, or send it as Bearer", async () => {
      for (const authorization of [
        basicAuth(client.token, "alice"),
        basicAuth(client.token, ""),
        `Bearer ${client.token}`,
        `bearer ${client.token}`,
      ]) {
        const answer = await ask("/v2/", { authorization });
        expect(answer.status).to.equal(200);
        expect(answer.body.toString()).to.equal("{}");
        expect(answer.headers).to.include({
          "content-type": "application/json",
          "docker-distribution-api-version": "registry/2.0",
        });
        const tags = await ask(`${client.base}app/tags/list`, { authorization });
        expect(JSON.parse(tags.body.toString()).tags).to.deep.equal(["1"]);
      }
    });

    const strangers: readonly (readonly [string, string])[] = [
      ["another token", basicAuth("wrong-token")],
      ["another token as Bearer", "Bearer wrong-token"],
      ["nothing in it", basicAuth("", "")],
      ["the registry's own credential", basicAuth("secret-of-alice", "alice")],
      ["a token as the user", basicAuth("", "TOKEN")],
      ["another scheme", "Digest TOKEN"],
    ];
    for (const [name, value] of strangers) {
      it(`is nobody with ${name}`, async () => {
        const authorization = value.replace("TOKEN", client.token);
        for (const target of ["/v2/", `${client.base}app/tags/list`]) {
          const answer = await ask(target, { authorization });
          expect(answer.status).to.equal(401);
          expect(answer.headers["www-authenticate"]).to.match(/^Basic /);
          expect(errorIn(answer).code).to.equal("UNAUTHORIZED");
          expect(answer.body.toString()).to.not.contain("wrong-token");
        }
        expect(registry.requests).to.deep.equal([]);
      });
    }

    it("is told at HEAD as well, without a body", async () => {
      const answer = await ask("/v2/", {}, "HEAD");
      expect(answer.status).to.equal(401);
      expect(answer.body).to.have.length(0);
      const known = await client("HEAD", "/v2/");
      expect(known.status).to.equal(200);
      expect(known.body).to.have.length(0);
    });

    it("can ping below a connector's path as well, as mirrors do", async () => {
      expect((await client("GET", client.base)).status).to.equal(200);
      expect((await ask(client.base)).status).to.equal(401);
      expect(registry.requests).to.deep.equal([]);
    });
  });

  describe("for which connector", () => {
    it("they need a token that opens it", async () => {
      const answer = await client("GET", "/v2/namespaces/team-a/connectors/other/app/tags/list");
      expect(answer.status).to.equal(403);
      expect(errorIn(answer)).to.include({ code: "DENIED" });
      expect(errorIn(answer).message).to.contain("may not use team-a/other");
      expect(registry.requests).to.deep.equal([]);
    });

    it("is not said to those who may not know", async () => {
      const path = "/v2/namespaces/team-a/connectors/nothing/app/tags/list";
      expect((await client("GET", path)).status).to.equal(403);
    });

    it("has to be one that is there", async () => {
      const answer = await clientOf(proxy, "nothing")("GET", "app/tags/list");
      expect(answer.status).to.equal(404);
      expect(errorIn(answer).code).to.equal("NAME_UNKNOWN");
      expect(errorIn(answer).message).to.equal('connector "team-a/nothing" not found');
    });

    it("has to be one that can be used", async () => {
      proxy.surroundings.invalid.set("team-a/broken", "spec.address: found nothing");
      const answer = await clientOf(proxy, "broken")("GET", "app/tags/list");
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).code).to.equal("DENIED");
      expect(errorIn(answer).message).to.contain("spec.address: found nothing");
    });

    it("has to be one whose Secret can be read", async () => {
      proxy.connect("secretless", registry.url);
      proxy.surroundings.secrets.delete("secretless");
      const answer = await clientOf(proxy, "secretless")("GET", "app/tags/list");
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).message).to.contain("team-a/secretless has no login: there is no Se");
    });

    it("follows from its own host in the short form", async () => {
      const host = "c-harbor.team-a.svc.cluster.local";
      const answer = await client("GET", "/v2/app/tags/list", { headers: { host } });
      expect(answer.status).to.equal(200);
      const other = host.replace("harbor", "other");
      const refused = await client("GET", "/v2/app/tags/list", { headers: { host: other } });
      expect(refused.status).to.equal(403);
    });

    it("follows from the path before the host", async () => {
      const headers = { host: "c-other.team-a.svc.cluster.local" };
      expect((await client("GET", "app/tags/list", { headers })).status).to.equal(200);
      const other = { host: "c-harbor.team-a.svc.cluster.local" };
      const path = "/v2/namespaces/team-a/connectors/other/app/tags/list";
      expect((await client("GET", path, { headers: other })).status).to.equal(403);
    });

    it("has to be named by one of both", async () => {
      const answer = await client("GET", "/v2/app/tags/list");
      expect(answer.status).to.equal(404);
      expect(errorIn(answer).code).to.equal("NAME_UNKNOWN");
      expect(errorIn(answer).detail).to.contain("/namespaces/<namespace>/connectors/<connector>/");
    });
  });

  describe("methods", () => {
    const cases: readonly (readonly [string, string, string])[] = [
      ["POST", "app/manifests/1", "GET, HEAD, PUT, DELETE"],
      ["PUT", "app/blobs/sha256:0", "GET, HEAD, DELETE"],
      ["GET", "app/blobs/uploads/", "POST"],
      ["POST", "app/blobs/uploads/x", "GET, HEAD, PATCH, PUT, DELETE"],
      ["DELETE", "app/tags/list", "GET, HEAD"],
      ["POST", "_catalog", "GET, HEAD"],
      ["OPTIONS", "app/tags/list", "GET, HEAD"],
      ["POST", "/v2/", "GET, HEAD"],
      ["DELETE", "/v2/namespaces/team-a/connectors/harbor/", "GET, HEAD"],
    ];
    for (const [method, path, allow] of cases) {
      it(`${method} ${path} is none`, async () => {
        const answer = await client(method, path);
        expect(answer.status).to.equal(405);
        expect(answer.headers.allow).to.equal(allow);
        expect(errorIn(answer).code).to.equal("UNSUPPORTED");
        expect(registry.requests).to.deep.equal([]);
      });
    }
  });

  describe("bodies that mean nothing", () => {
    // Sent on, they would be framed in another way, and be read as a request of their own.
    const smuggled = "GET /v2/smuggled/tags/list HTTP/1.1\r\nHost: x\r\n\r\n";
    const chunked = `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`;
    const cases: readonly (readonly [string, string, string])[] = [
      ["DELETE", "Transfer-Encoding: chunked", chunked],
      ["DELETE", `Content-Length: ${smuggled.length}`, smuggled],
      ["GET", "Transfer-Encoding: chunked", chunked],
      ["GET", `Content-Length: ${smuggled.length}`, smuggled],
      ["HEAD", "Transfer-Encoding: chunked", chunked],
    ];
    for (const [method, framing, body] of cases) {
      for (const what of ["manifests/1", `blobs/sha256:${"0".repeat(64)}`]) {
        it(`of ${method} ${what} with ${framing} are refused`, async () => {
          const connection = await openRaw({ port: Number(proxy.http.split(":")[1]) });
          connection.send(
            `${method} ${client.base}app/${what} HTTP/1.1\r\nHost: x\r\nAuthorization: ${client.authorization}\r\n${framing}\r\nConnection: close\r\n\r\n${body}`,
          );
          await connection.closed;
          connection.stop();
          expect(statusesIn(connection.received())).to.deep.equal([400]);
          expect(registry.requests).to.deep.equal([]);
        });
      }
    }

    it("are nothing where they are empty", async () => {
      const answer = await client("GET", "app/manifests/1", { headers: { "content-length": "0" } });
      expect(answer.status).to.equal(200);
    });
  });

  it("says 503 with Retry-After while its surroundings can't answer", async () => {
    for (const question of [
      "verifyToken",
      "mayUse",
      "findConnector",
      "readUpstreamSecrets",
    ] as const) {
      proxy.surroundings.away = question;
      const answer = await client("GET", "app/tags/list");
      expect(answer.status).to.equal(503);
      expect(answer.headers["retry-after"]).to.match(/^\d+$/);
      expect(errorIn(answer)).to.include({ code: "UNAVAILABLE", message: `${question} is away` });
    }
    expect(registry.requests).to.deep.equal([]);
  });

  it("says nothing of its own mistakes, and logs them", async () => {
    const broken = resources.add(
      await startTestProxy({
        replicaOf: proxy,
        mayUse: () => Promise.reject(new TypeError("x is no function")),
      }),
    );
    const answer = await clientOf(broken, "harbor", client)("GET", "app/tags/list?last=secret");
    expect(answer.status).to.equal(500);
    expect(errorIn(answer)).to.deep.equal({
      code: "UNKNOWN",
      message: "internal error; see the proxy's log",
    });
    const { time: _, ...line } = JSON.parse(broken.log());
    expect(line).to.deep.equal({
      level: "warning",
      message: "request failed",
      method: "GET",
      connector: "team-a/harbor",
      repository: "app",
      reason: "unexpected error",
      error: "TypeError: x is no function",
    });
  });

  it("does not go round where a connector leads back to it", async () => {
    const round = resources.add(
      await startTestProxy({
        replicaOf: proxy,
        connectorOfHost: () => ({ namespace: "team-a", name: "round" }),
      }),
    );
    const token = proxy.token("round");
    proxy.connect("round", `http://${round.http}`, {
      credential: { username: "x", password: token },
    });
    const before = proxy.surroundings.secretReads.length;
    const answer = await clientOf(round, "round", { token })("GET", "app/tags/list");
    expect(answer.status).to.equal(403);
    expect(proxy.surroundings.secretReads.length - before).to.be.below(10);
  });

  describe("tricks with paths", () => {
    const tricks = [
      "app/../other/tags/list",
      "app/%2e%2e/other/tags/list",
      "app%2Fb/tags/list",
      "app/tags%2Flist",
      "app//tags/list",
      "./app/tags/list",
      "app/./tags/list",
      "app\\..\\other/tags/list",
      "app/manifests/..%2F..%2Fother%2Fmanifests%2F1",
      "app/manifests/1%00",
      "app/manifests/1;x",
      "APP/tags/list",
      "../ghcr/app/tags/list",
      "../../../_catalog",
      "_catalog/",
      "app/_catalog",
      "app/blobs/uploads/../../manifests/1",
      "app/blobs/uploads/..",
      "app/tags/list#",
    ];
    for (const path of tricks) {
      it(`do not reach the registry: ${path}`, async () => {
        const connection = await openRaw({ port: Number(proxy.http.split(":")[1]) });
        connection.send(
          `GET ${client.base}${path} HTTP/1.1\r\nHost: x\r\nAuthorization: ${client.authorization}\r\nConnection: close\r\n\r\n`,
        );
        await connection.closed;
        connection.stop();
        expect(statusesIn(connection.received())).to.deep.equal([404]);
        expect(registry.requests).to.deep.equal([]);
      });
    }

    it("whatever is let through is asked for under just that name", async () => {
      const { digest } = image.manifest;
      const parts = fc.constantFrom(
        "blobs",
        "uploads",
        "manifests",
        "tags",
        "list",
        "referrers",
        "app",
        "a.b",
        "a--b",
        "namespaces",
        "connectors",
        "v2",
        "",
        ".",
        "..",
        "%2e%2e",
        "%2F",
        "A",
        "a:b",
      );
      const last = fc.constantFrom(
        "tags/list",
        "manifests/latest",
        `manifests/${digest}`,
        `blobs/${digest}`,
        `referrers/${digest}`,
        "x",
        "",
      );
      const query = fc.constantFrom("", "?", "?n=1", "?ns=docker.io", "?last=%2Fa%3D&ns=x&n=2");
      const path = fc
        .tuple(fc.array(parts, { minLength: 1, maxLength: 4 }), last)
        .map(([middle, end]) => `${middle.join("/")}/${end}`);
      const unasked = (path: string): readonly number[] =>
        /^\/v2\/?$/.test(path) ? [200] : [400, 404, 405]; // the base is answered here
      let letThrough = 0;
      await fc.assert(
        fc.asyncProperty(path, query, async (asked, parameters) => {
          registry.requests.length = 0;
          const answer = await client("GET", asked + parameters);
          const seen = registry.requests.filter(
            ({ target }) => target.kind !== "ping" && target.kind !== "token",
          );
          letThrough += seen.length;
          for (const { url } of seen) {
            const [kept = ""] = parameters.replace(/ns=[^&]*&?/, "").match(/^\?.+/) ?? [];
            expect(url).to.equal(`/v2/${asked}${kept}`);
            expect(url.split("?")[0]).to.not.match(/%|\/\/|\/\.\.?(\/|$)/);
          }
          if (seen.length === 0) expect(answer.status).to.be.oneOf(unasked(asked));
        }),
        { numRuns: 300 },
      );
      expect(letThrough).to.be.above(20);
    });
  });
});
