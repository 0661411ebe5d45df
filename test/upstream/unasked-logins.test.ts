import { expect } from "chai";
import { clientOf, errorIn, type TestClient } from "../proxy/test-client.ts";
import { startTestProxy, type TestProxy } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addBlob, addImage } from "../support/fake-registry-content.ts";
import { noise, sha256 } from "../support/oci-image.ts";
import { oddRegistry } from "../support/registries/odd-registries.ts";

const alice = { username: "alice", password: "secret-of-alice" };
const wrong = { username: "alice", password: "wrong-password" };
const basic = (password: string): string =>
  `Basic ${Buffer.from(`alice:${password}`).toString("base64")}`;

describe("a registry that answers /v2/ to everybody", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;
  let now: number;

  beforeEach(async () => {
    now = Date.now();
    registry = resources.add(await startFakeRegistry({ auth: "bearer", now: () => now }));
    addImage(registry.repository("app"), "1");
    proxy = resources.add(await startTestProxy({ now: () => now }));
    proxy.connect("harbor", registry.url, { credential: alice });
    client = clientOf(proxy, "harbor");
  });
  afterEach(resources.stop);

  const count = (kind: string): number =>
    registry.requests.filter(({ target }) => target.kind === kind).length;
  const list = async (): Promise<number> => (await client("GET", "app/tags/list")).status;
  const loginsOf = (kind: string): (string | undefined)[] =>
    registry.requests
      .filter(({ target }) => target.kind === kind)
      .map(({ headers }) => headers.authorization?.split(" ")[0]);

  /** @param hidden what a private repository answers to whoever has no login, or a wrong one */
  const hide = (hidden = 404, refused = hidden): void => {
    registry.auth.mode = "none";
    registry.on("* *", ({ request, target, fail, next }) => {
      const { authorization } = request.headers;
      const isOpen = target.repository === "" || authorization === basic("secret-of-alice");
      if (isOpen) return next();
      request.resume();
      return fail(authorization === undefined ? hidden : refused, "UNKNOWN");
    });
  };

  for (const status of [401, 403, 404]) {
    it(`and ${status} to the anonymous where a repository is private`, async () => {
      hide(status);
      expect(await list()).to.equal(200);
      expect(await list()).to.equal(200);
      expect(loginsOf("tags")).to.deep.equal([undefined, "Basic", "Basic"]);
    });
  }

  it(oddRegistry("open-ping"), async () => {
    hide();
    for (let index = 0; index < 10; index++) {
      const digest = sha256(Buffer.from(`blob ${index}`));
      expect((await client("HEAD", `app/blobs/${digest}`)).status).to.equal(404);
    }
    expect(loginsOf("blob")).to.deep.equal([undefined, ...Array(10).fill("Basic")]);
    const { location = "" } = (await client("POST", "app/blobs/uploads/")).headers;
    expect((await client("PATCH", location, { body: "x" })).status).to.equal(202);
    expect([...loginsOf("uploads"), ...loginsOf("upload")]).to.deep.equal(["Basic", "Basic"]);
  });

  it("and is tried again after ten minutes", async () => {
    hide();
    expect(await list()).to.equal(200);
    now += 600_000;
    expect(await list()).to.equal(200);
    expect(loginsOf("tags")).to.deep.equal([undefined, "Basic", undefined, "Basic"]);
  });

  it("and a missing repository stays missing where the login is refused", async () => {
    for (const refused of [401, 403]) {
      proxy.connect("wrong", registry.url, { credential: wrong });
      const fresh = resources.add(await startTestProxy({ replicaOf: proxy, now: () => now }));
      const other = clientOf(fresh, "wrong");
      hide(404, refused);
      registry.requests.length = 0;
      for (let time = 0; time < 3; time++) {
        expect((await other("GET", "app/tags/list")).status).to.equal(404);
      }
      expect(loginsOf("tags"), `${refused}`).to.deep.equal([
        undefined,
        "Basic",
        undefined,
        undefined,
      ]);
    }
  });

  it("and a wrong password is sent for two repositories, then once in 60 seconds, by many requests for many repositories", async () => {
    proxy.connect("wrong", registry.url, { credential: wrong });
    const other = clientOf(proxy, "wrong");
    hide(404, 401);
    const lists = (prefix: string) =>
      Promise.all(
        Array.from({ length: 20 }, (_, index) => other("GET", `${prefix}${index}/tags/list`)),
      );
    for (const { status } of await lists("x")) expect(status).to.equal(404);
    expect(loginsOf("tags").filter(Boolean)).to.have.length(2);
    now += 59_999;
    await lists("y");
    expect(loginsOf("tags").filter(Boolean)).to.have.length(2);
    now += 1;
    await lists("z");
    expect(loginsOf("tags").filter(Boolean)).to.have.length(3);
  });

  it("and the first of several blobs at a time is not waited for to its end", async () => {
    hide();
    const digests = ["one", "two", "three"].map((name) =>
      addBlob(registry.repository("app"), noise(name, 100_000)),
    );
    const answers = await Promise.all(
      digests.map((digest) => client("GET", `app/blobs/${digest}`)),
    );
    expect(answers.map(({ status }) => status)).to.deep.equal([200, 200, 200]);
  });

  it("and a manifest that is pushed is sent again with the login", async () => {
    hide(403);
    const config = addBlob(registry.repository("app"), Buffer.from("{}"));
    const body = JSON.stringify({ config: { digest: config }, layers: [] });
    expect((await client("PUT", "app/manifests/2", { body })).status).to.equal(201);
  });

  it("and content that can't be sent again is asked for once more, which is a 503", async () => {
    hide(403);
    const path = `app/blobs/uploads/?digest=${sha256(Buffer.from("x"))}`;
    expect((await client("POST", path, { body: "x" })).status).to.equal(503);
    expect((await client("POST", path, { body: "x" })).status).to.equal(201);
  });

  it("and 403 without a login at hand, which the message says", async () => {
    hide(403);
    proxy.connect("public", registry.url);
    const answer = await clientOf(proxy, "public")("GET", "app/tags/list");
    expect(answer.status).to.equal(403);
    expect(errorIn(answer).message).to.equal(
      `the registry ${registry.url} answered 403 UNKNOWN to a request without a login, by the connector team-a/public`,
    );
    expect(count("tags")).to.equal(1);
  });

  it("and takes back a password that it took before", async () => {
    hide(404, 401);
    expect(await list()).to.equal(200);
    registry.on("* *", ({ request, fail, next }) =>
      request.headers.authorization === undefined ? next() : fail(401, "UNAUTHORIZED"),
    );
    expect(await list()).to.equal(403);
    expect(await list()).to.equal(404);
    expect(await list()).to.equal(404);
    const logins = [undefined, "Basic", "Basic", undefined, undefined];
    expect(loginsOf("tags")).to.deep.equal(logins);
  });

  it("and the account gets a right later: the login is tried again after 10 seconds", async () => {
    hide(404, 403);
    proxy.connect("harbor", registry.url, { credential: wrong });
    expect(await list()).to.equal(404);
    registry.on("* *", ({ request, next }) => {
      if (request.headers.authorization === basic("wrong-password")) {
        request.headers.authorization = basic("secret-of-alice");
      }
      return next();
    });
    now += 9_999;
    expect(await list()).to.equal(404);
    now += 1;
    expect(await list()).to.equal(200);
  });

  it("and refuses a push to an account that may pull: it still pulls", async () => {
    registry.auth.mode = "none";
    registry.on("* *", ({ request, target, fail, next }) => {
      const isRead = request.method === "GET" && request.headers.authorization !== undefined;
      return target.kind === "ping" || isRead ? next() : fail(401, "UNAUTHORIZED");
    });
    expect((await client("POST", "app/blobs/uploads/")).status).to.equal(403);
    now += 10_000;
    expect(await list()).to.equal(200);
    expect((await client("POST", "app/blobs/uploads/")).status).to.equal(403);
    expect(await list()).to.equal(200);
  });

  it("and Bearer to the anonymous with 403, which is what is tried", async () => {
    registry.auth.mode = "none";
    registry.on("GET tags", ({ request, send, next }) => {
      const token = request.headers.authorization?.slice("Bearer ".length) ?? "";
      if (registry.auth.tokens.has(token)) return next();
      const challenge = `Bearer realm="${registry.url}/token",service="x"`;
      return send(403, { "WWW-Authenticate": challenge });
    });
    expect(await list()).to.equal(200);
    expect(loginsOf("tags")).to.deep.equal([undefined, "Bearer"]);
  });
});
