import { expect } from "chai";
import { clientOf, errorIn } from "../proxy/test-client.ts";
import { startTestProxy, type TestProxy } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addBlob, addImage } from "../support/fake-registry-content.ts";
import {
  forbiddenRealms,
  garbageChallenges,
  refuseEverybody,
  revokeTokensAfter,
  tokenEndpoint,
  useRealm,
} from "../support/hostile-auth.ts";
import { sha256 } from "../support/oci-image.ts";

const alice = { username: "alice", password: "secret-of-alice" };
const wrong = { username: "alice", password: "wrong-password" };

describe("the proxy's login to a registry", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let now: number;

  beforeEach(async () => {
    now = Date.now();
    registry = resources.add(await startFakeRegistry({ auth: "bearer", now: () => now }));
    addImage(registry.repository("app"), "1");
    proxy = resources.add(await startTestProxy({ now: () => now }));
    proxy.connect("harbor", registry.url, { credential: alice });
  });
  afterEach(resources.stop);

  const kinds = (): string =>
    registry.requests
      .map(({ method, target, status }) => `${method} ${target.kind} ${status}`)
      .join(", ");
  const count = (kind: string): number =>
    registry.requests.filter(({ target }) => target.kind === kind).length;
  const list = (name = "harbor") => clientOf(proxy, name)("GET", "app/tags/list");

  it("asks how, once, and then for a token, once", async () => {
    for (let time = 0; time < 3; time++) expect((await list()).status).to.equal(200);
    expect(kinds()).to.equal(
      "GET ping 401, GET token 200, GET tags 200, GET tags 200, GET tags 200",
    );
  });

  it("asks once for many at a time", async () => {
    tokenEndpoint.slow(registry, 50);
    const answers = await Promise.all(Array.from({ length: 20 }, () => list()));
    expect(answers.map(({ status }) => status)).to.deep.equal(Array(20).fill(200));
    expect([count("ping"), count("token")]).to.deep.equal([1, 1]);
  });

  it("needs none where the registry wants none", async () => {
    registry.auth.mode = "none";
    expect((await list()).status).to.equal(200);
    expect((await list()).status).to.equal(200);
    expect(kinds()).to.equal("GET ping 200, GET tags 200, GET tags 200");
    const authorizations = registry.requests.map(({ headers }) => headers.authorization);
    expect(authorizations).to.deep.equal([undefined, undefined, undefined]);
  });

  it("is Basic where the registry wants that", async () => {
    registry.auth.mode = "basic";
    expect((await list()).status).to.equal(200);
    const basic = `Basic ${Buffer.from("alice:secret-of-alice").toString("base64")}`;
    expect((await list()).status).to.equal(200);
    expect(kinds()).to.equal("GET ping 401, GET ping 200, GET tags 200, GET tags 200");
    const logins = registry.requests.map(({ headers }) => headers.authorization);
    expect(logins).to.deep.equal([undefined, basic, basic, basic]);
  });

  it("prefers Bearer where there is a choice", async () => {
    const { challenge } = registry.auth;
    registry.auth.challenge = (wanted) => ['Basic realm="people"', challenge(wanted)].flat();
    expect((await list()).status).to.equal(200);
    expect(count("token")).to.equal(1);
  });

  it("follows a registry that changes its mind", async () => {
    for (const mode of ["none", "bearer", "basic", "bearer", "none", "basic"] as const) {
      registry.auth.mode = mode;
      expect((await list()).status, mode).to.equal(200);
    }
  });

  it("follows a registry whose ping wants none", async () => {
    registry.on("GET ping", ({ json }) => json(200, {}), "before auth");
    expect((await list()).status).to.equal(200);
    expect(kinds()).to.equal("GET ping 200, GET tags 401, GET token 200, GET tags 200");
  });

  it("asks again for how, where it could not be told", async () => {
    for (const status of [500, 503]) {
      const undo = registry.on("GET ping", ({ fail }) => fail(status, "UNKNOWN"), "before auth");
      const answer = await list();
      expect(answer.status).to.equal(503);
      expect(errorIn(answer).message).to.equal(
        `the registry ${registry.url} answered ${status} to GET /v2/`,
      );
      undo();
    }
    expect((await list()).status).to.equal(200);
  });

  describe("asks the scopes that a request needs", () => {
    const digest = sha256(Buffer.from("x"));
    const cases: readonly (readonly [string, string, readonly string[]])[] = [
      ["GET", "a/b/tags/list", ["repository:a/b:pull"]],
      ["HEAD", "a/manifests/1", ["repository:a:pull"]],
      ["GET", `a/blobs/${digest}`, ["repository:a:pull"]],
      ["GET", `a/referrers/${digest}`, ["repository:a:pull"]],
      ["PUT", "a/manifests/1", ["repository:a:pull,push"]],
      ["DELETE", "a/manifests/1", ["repository:a:delete"]],
      ["DELETE", `a/blobs/${digest}`, ["repository:a:delete"]],
      ["POST", "a/blobs/uploads/", ["repository:a:pull,push"]],
      [
        "POST",
        `a/blobs/uploads/?mount=${digest}&from=namespaces%2Fteam-a%2Fconnectors%2Fharbor%2Fc%2Fd`,
        ["repository:a:pull,push", "repository:c/d:pull"],
      ],
      ["POST", `a/blobs/uploads/?mount=${digest}`, ["repository:a:pull,push"]],
      ["POST", `a/blobs/uploads/?mount=${digest}&from=c&origin=o.test`, ["repository:a:pull,push"]],
    ];
    for (const [method, path, scopes] of cases) {
      it(`${method} ${path}`, async () => {
        await clientOf(proxy, "harbor")(method, path);
        const [asked] = registry.requests.filter(({ target }) => target.kind === "token");
        const { searchParams } = new URL(asked?.url ?? "", registry.url);
        expect(searchParams.getAll("scope")).to.deep.equal(scopes);
      });
    }

    it("PATCH, PUT, GET and DELETE of an upload", async () => {
      const client = clientOf(proxy, "harbor");
      const { location = "" } = (await client("POST", "a/blobs/uploads/")).headers;
      for (const [method, actions] of [
        ["GET", "pull,push"],
        ["PATCH", "pull,push"],
        ["PUT", "pull,push"],
        ["DELETE", "pull,push,delete"],
      ] as const) {
        const fresh = resources.add(await startTestProxy({ replicaOf: proxy }));
        registry.requests.length = 0;
        await clientOf(fresh, "harbor", client)(method, location);
        const asked = registry.requests.find(({ target }) => target.kind === "token");
        const { searchParams } = new URL(asked?.url ?? "", registry.url);
        expect(searchParams.getAll("scope"), method).to.deep.equal([`repository:a:${actions}`]);
      }
    });
  });

  describe("with a token that the registry does not accept any more", () => {
    it("gets another one, once, where no body is lost", async () => {
      expect((await list()).status).to.equal(200);
      registry.auth.tokens.clear();
      registry.requests.length = 0;
      expect((await list()).status).to.equal(200);
      expect(kinds()).to.equal("GET tags 401, GET token 200, GET tags 200");
    });

    it("gets another one for a manifest, which is held", async () => {
      const client = clientOf(proxy, "harbor");
      const config = addBlob(registry.repository("app"), Buffer.from("{}"));
      const body = JSON.stringify({ config: { digest: config }, layers: [] });
      expect((await client("PUT", "app/manifests/2", { body })).status).to.equal(201);
      registry.auth.tokens.clear();
      registry.requests.length = 0;
      expect((await client("PUT", "app/manifests/3", { body })).status).to.equal(201);
      expect(kinds()).to.equal("PUT manifest 401, GET token 200, PUT manifest 201");
    });

    it("gets another one for many at a time, once", async () => {
      expect((await list()).status).to.equal(200);
      registry.auth.tokens.clear();
      registry.requests.length = 0;
      const answers = await Promise.all(Array.from({ length: 10 }, () => list()));
      expect(answers.map(({ status }) => status)).to.deep.equal(Array(10).fill(200));
      expect(count("token")).to.equal(1);
    });

    it("goes on, whenever that happens", async () => {
      revokeTokensAfter(registry, 1);
      for (let time = 0; time < 5; time++) expect((await list()).status).to.equal(200);
    });

    it("gets another one before the old one dies", async () => {
      registry.auth.lifetime = 100;
      await list();
      now += 86_000;
      registry.requests.length = 0;
      expect((await list()).status).to.equal(200);
      expect(kinds()).to.equal("GET token 200, GET tags 200");
    });

    it("is denied after one more try", async () => {
      refuseEverybody(registry);
      const answer = await list();
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).message).to.contain("answered 401");
      expect(errorIn(answer).message).to.contain("team-a/harbor");
      expect(count("tags")).to.equal(2);
    });

    it("is denied where the registry says nothing more than 401", async () => {
      await list();
      registry.on("GET tags", ({ fail }) => fail(401, "UNAUTHORIZED"));
      const answer = await list();
      expect(answer.status).to.equal(403);
      expect(errorIn(answer)).to.include({ code: "DENIED" });
      expect(answer.headers["www-authenticate"]).to.equal(undefined);
    });
  });

  describe("with a wrong password", () => {
    beforeEach(() => void proxy.connect("harbor", registry.url, { credential: wrong }));

    it("is denied, and the token server is asked again after 60 seconds", async () => {
      for (let time = 0; time < 5; time++) {
        const answer = await list();
        expect(answer.status).to.equal(403);
        expect(errorIn(answer).code).to.equal("DENIED");
        expect(errorIn(answer).message).to.contain("refused the connector's login (401)");
        expect(errorIn(answer).detail).to.contain(
          "the next attempt is in 60 s, or when the Secret",
        );
        expect(answer.headers["retry-after"]).to.equal("60");
        expect(answer.headers["www-authenticate"]).to.equal(undefined);
      }
      expect(count("token")).to.equal(2);
      now += 60_000;
      expect((await list()).status).to.equal(403);
      expect(count("token")).to.equal(3);
    });

    it("is denied with Basic as well", async () => {
      registry.auth.mode = "basic";
      const answer = await list();
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).message).to.contain("refused the connector's login (401)");
      expect(answer.headers["retry-after"]).to.equal("60");
      expect(kinds()).to.equal("GET ping 401, GET ping 401");
    });

    it("reads the Secret anew, and goes on with what it says", async () => {
      for (const mode of ["bearer", "basic"] as const) {
        registry.auth.mode = mode;
        proxy.connect("harbor", registry.url, { credential: wrong, renewed: alice });
        proxy.surroundings.secretReads.length = 0;
        expect((await list()).status, mode).to.equal(200);
        expect((await list()).status, mode).to.equal(200);
        const reads = proxy.surroundings.secretReads.map(({ fresh }) => fresh);
        expect(reads).to.deep.equal([false, true, false]);
      }
    });

    it("sends a manifest again after that", async () => {
      proxy.connect("harbor", registry.url, { credential: wrong, renewed: alice });
      const config = addBlob(registry.repository("app"), Buffer.from("{}"));
      const body = JSON.stringify({ config: { digest: config }, layers: [] });
      const answer = await clientOf(proxy, "harbor")("PUT", "app/manifests/2", { body });
      expect(answer.status).to.equal(201);
    });

    it("begins an upload with a body again, where none of it is gone", async () => {
      proxy.connect("harbor", registry.url, { credential: wrong, renewed: alice });
      const path = `app/blobs/uploads/?digest=${sha256(Buffer.from("x"))}`;
      expect((await clientOf(proxy, "harbor")("POST", path, { body: "x" })).status).to.equal(201);
    });

    it("asks no more than once where the Secret says the same", async () => {
      await list();
      const asked = count("token");
      await list();
      expect(count("token")).to.equal(asked);
    });
  });

  it("is denied where an account may not do a thing, without the registry's own words", async () => {
    registry.on("GET tags", ({ json }) =>
      json(403, { errors: [{ code: "DENIED", message: "secret-of-alice, alice" }] }),
    );
    const answer = await list();
    expect(answer.status).to.equal(403);
    expect(errorIn(answer).message).to.equal(
      `the registry ${registry.url} answered 403 DENIED to the account of the connector team-a/harbor`,
    );
    expect(answer.body.toString()).to.not.contain("alice");
  });

  it("shows no code that is none", async () => {
    for (const code of ["lower", "A".repeat(41), "A B", 7, null, "<SCRIPT>"]) {
      const undo = registry.on("GET tags", ({ json }) => json(403, { errors: [{ code }] }));
      expect(errorIn(await list()).message).to.contain("answered 403 to the account");
      undo();
    }
    for (const body of ["", "{", "[]", '{"errors":{}}', '{"errors":[null]}']) {
      const undo = registry.on("GET tags", ({ send }) => send(403, {}, Buffer.from(body)));
      expect(errorIn(await list()).message).to.contain("answered 403 to the account");
      undo();
    }
  });

  describe("without a credential", () => {
    beforeEach(() => void proxy.connect("public", registry.url));

    it("is an anonymous token", async () => {
      registry.auth.rights = (_, { actions }) => actions.filter((action) => action === "pull");
      expect((await list("public")).status).to.equal(200);
      const [token] = registry.requests.filter(({ target }) => target.kind === "token");
      expect(token?.headers.authorization).to.equal(undefined);
      expect(token?.url).to.not.contain("account=");
      const push = await clientOf(proxy, "public")("POST", "app/blobs/uploads/");
      expect(push.status).to.equal(403);
    });

    it("never uses the token of a connector that has one", async () => {
      expect((await list("harbor")).status).to.equal(200);
      expect((await list("public")).status).to.equal(403);
      expect((await list("harbor")).status).to.equal(200);
      expect((await list("public")).status).to.equal(403);
    });

    it("is nothing where the registry wants Basic, and says so", async () => {
      registry.auth.mode = "basic";
      const answer = await list("public");
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).detail).to.contain("spec.auth.secretRef");
    });
  });

  describe("sends no password", () => {
    it("to a realm that may not have it", async () => {
      const elsewhere = resources.add(
        await startFakeRegistry({ auth: "bearer", hostname: "127.0.0.2" }),
      );
      for (const [what, realm] of forbiddenRealms(registry, elsewhere)) {
        const fresh = resources.add(await startTestProxy({ replicaOf: proxy }));
        useRealm(registry, realm);
        registry.requests.length = 0;
        const answer = await clientOf(fresh, "harbor")("GET", "app/tags/list");
        expect(answer.status, what).to.be.oneOf([403, 502]);
        expect(answer.body.toString(), what).to.not.contain("password");
        expect(count("token"), what).to.equal(0);
        await fresh.stop();
      }
      expect(elsewhere.requests).to.deep.equal([]);
    });

    it("to an address that nobody may dial, whatever the connector allows", async () => {
      const params = [{ name: "allowedRealmHosts", value: "0.0.0.0,127.0.0.2" }];
      for (const [realm, message] of [
        ["http://0.0.0.0:1/token", "is never connected to"],
        ["http://127.0.0.2:1/token", "nothing listens there"],
      ] as const) {
        proxy.connect("allowing", registry.url, { credential: alice, params });
        const fresh = resources.add(await startTestProxy({ replicaOf: proxy }));
        useRealm(registry, realm);
        const answer = await clientOf(fresh, "allowing")("GET", "app/tags/list");
        expect(errorIn(answer).message).to.contain(message);
      }
    });

    it("to a realm that comes with a later 401", async () => {
      const elsewhere = resources.add(
        await startFakeRegistry({ auth: "bearer", hostname: "127.0.0.2" }),
      );
      expect((await list()).status).to.equal(200);
      registry.auth.tokens.clear();
      useRealm(registry, `${elsewhere.url}/token`);
      const answer = await list();
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).message).to.contain("allowedRealmHosts");
      expect(elsewhere.requests).to.deep.equal([]);
    });

    it("where a challenge makes no sense", async () => {
      for (const [what, challenge] of garbageChallenges) {
        const fresh = resources.add(await startTestProxy({ replicaOf: proxy }));
        registry.auth.challenge = () => challenge;
        registry.requests.length = 0;
        const answer = await clientOf(fresh, "harbor")("GET", "app/tags/list");
        expect(answer.status, what).to.be.oneOf([403, 502, 503]);
        const authorizations = registry.requests.map(({ headers }) => headers.authorization);
        expect(authorizations.filter(Boolean), what).to.deep.equal([]);
        await fresh.stop();
      }
    });

    it("to a registry at an address that nobody may dial", async () => {
      for (const host of ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]"]) {
        proxy.connect("metadata", `http://${host}`, { credential: alice });
        const answer = await list("metadata");
        expect(answer.status).to.equal(403);
        expect(errorIn(answer).message).to.contain("is never connected to");
      }
    });
  });

  describe("says what is wrong", () => {
    const reason = async (address: string, caCertificates: readonly string[] = []) => {
      proxy.connect("other", address, { credential: alice, caCertificates });
      const answer = await list("other");
      expect(answer.status).to.equal(503);
      expect(answer.headers["retry-after"]).to.match(/^\d+$/);
      return errorIn(answer);
    };

    it("where nothing listens", async () => {
      const gone = await startFakeRegistry();
      await gone.stop();
      expect((await reason(gone.url)).message).to.contain("nothing listens there");
    });

    it("where there is no such name", async () => {
      const { message } = await reason("http://no-such-host.invalid");
      expect(message).to.match(/unknown to DNS|DNS does not answer/);
    });

    it("where a certificate is not trusted, or not for that name", async () => {
      const secure = resources.add(await startFakeRegistry({ tls: true }));
      const untrusted = await reason(secure.url);
      expect(untrusted.message).to.contain("authority that is not trusted");
      expect(untrusted.detail).to.contain("caCertSecretRef");
      const port = secure.host.split(":")[1];
      const other = await reason(`https://127.0.0.2:${port}`, [secure.ca ?? ""]);
      expect(other.message).to.match(/nothing listens|another name/);
      const named = await reason(`https://localhost:${port}`, [secure.ca ?? ""]);
      expect(named.message).to.contain("its certificate is for another name");
      proxy.connect("other", secure.url, { caCertificates: [secure.ca ?? ""] });
      expect((await list("other")).status).to.equal(404);
    });

    it("where plain HTTP meets TLS, in either direction", async () => {
      await reason(registry.url.replace("http:", "https:"));
      const secure = resources.add(await startFakeRegistry({ tls: true }));
      await reason(secure.url.replace("https:", "http:"));
    });
  });

  it("is logged without the password and without a token", async () => {
    tokenEndpoint.notJson(registry, "secret-in-answer");
    expect((await list()).status).to.equal(502);
    expect(proxy.log()).to.contain("answered 200 without a token");
    expect(proxy.log()).to.not.match(/secret-(of-alice|in-answer)|Basic|token-/);
  });
});
