import type { IncomingHttpHeaders } from "node:http";
import { gzipSync } from "node:zlib";
import { expect } from "chai";
import { clientOf, errorIn, type TestClient } from "../proxy/test-client.ts";
import { startTestProxy, type TestProxy } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addBlob, addImage } from "../support/fake-registry-content.ts";
import type { Exchange } from "../support/fake-registry-exchange.ts";
import { revokeTokensAfter, tokenEndpoint, useRealm } from "../support/hostile-auth.ts";
import { noise, sha256 } from "../support/oci-image.ts";
import { oddRegistry } from "../support/registries/odd-registries.ts";

const alice = { username: "alice", password: "secret-of-alice" };
const wrong = { username: "alice", password: "wrong-password" };
const basic = (password: string): string =>
  `Basic ${Buffer.from(`alice:${password}`).toString("base64")}`;

describe("a registry whose login is odd", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;
  let now: number;

  beforeEach(async () => {
    now = Date.now();
    registry = resources.add(await startFakeRegistry({ auth: "bearer", now: () => now }));
    for (const name of ["app", "a", "b", "c", "d"]) addImage(registry.repository(name), "1");
    proxy = resources.add(await startTestProxy({ now: () => now }));
    proxy.connect("harbor", registry.url, { credential: alice });
    client = clientOf(proxy, "harbor");
  });
  afterEach(resources.stop);

  const kinds = (): string =>
    registry.requests
      .splice(0)
      .map(({ method, target, status }) => `${method} ${target.kind} ${status}`)
      .join(", ");
  const count = (kind: string): number =>
    registry.requests.filter(({ target }) => target.kind === kind).length;
  const list = async (name = "app"): Promise<number> =>
    (await client("GET", `${name}/tags/list`)).status;
  const loginsOf = (kind: string): (string | undefined)[] =>
    registry.requests
      .filter(({ target }) => target.kind === kind)
      .map(({ headers }) => headers.authorization?.split(" ")[0]);

  describe("moves its token server", () => {
    let other: FakeRegistry;

    beforeEach(async () => {
      other = resources.add(await startFakeRegistry({ auth: "bearer", now: () => now }));
      other.auth.lifetime = 5;
      useRealm(registry, `${other.url}/token`);
      const grants = registry.auth.tokens;
      other.on("GET token", async ({ next }) => {
        await next();
        for (const [token, grant] of other.auth.tokens) grants.set(token, grant);
      });
      expect(await list()).to.equal(200);
      now += 5_000;
      kinds();
    });

    it(oddRegistry("moved-token-server"), async () => {
      await other.stop();
      useRealm(registry, `${registry.url}/token`);
      expect(await list()).to.equal(200);
      expect(kinds()).to.equal("GET ping 401, GET token 200, GET tags 200");
    });

    it("while the one before refuses everybody", async () => {
      for (const status of [400, 401, 403, 404, 500]) {
        tokenEndpoint.fails(other, status);
        useRealm(registry, `${registry.url}/token`);
        expect(await list(), `${status}`).to.equal(200);
        now += 300_000;
        useRealm(registry, `${other.url}/token?${status}`);
      }
    });

    it("for many repositories at a time, and is asked once", async () => {
      await other.stop();
      useRealm(registry, `${registry.url}/token`);
      const answers = await Promise.all(["a", "b", "c", "d", "app"].map(list));
      expect(answers).to.deep.equal([200, 200, 200, 200, 200]);
      expect(count("ping")).to.equal(1);
    });

    it("to Basic, or wants no login any more", async () => {
      await other.stop();
      for (const mode of ["basic", "none"] as const) {
        registry.auth.mode = mode;
        registry.auth.challenge = () => 'Basic realm="x"';
        const fresh = resources.add(await startTestProxy({ replicaOf: proxy, now: () => now }));
        expect((await clientOf(fresh, "harbor")("GET", "app/tags/list")).status).to.equal(200);
        expect(await list(), mode).to.equal(200);
        now += 10_000;
      }
    });

    it("nowhere: then it is asked again once in 10 seconds, and the account once", async () => {
      tokenEndpoint.fails(other, 401);
      other.requests.length = 0;
      for (let time = 0; time < 5; time++) expect(await list()).to.equal(403);
      expect([count("ping"), other.requests.length]).to.deep.equal([1, 1]);
      now += 10_000;
      expect(await list()).to.equal(403);
      expect([count("ping"), other.requests.length]).to.deep.equal([2, 2]);
    });

    it("to a host that must not have the password: it is not sent there", async () => {
      const elsewhere = resources.add(await startFakeRegistry({ hostname: "127.0.0.2" }));
      tokenEndpoint.fails(other, 401);
      useRealm(registry, `${elsewhere.url}/token`);
      const answer = await client("GET", "app/tags/list");
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).message).to.contain("allowedRealmHosts");
      expect(elsewhere.requests).to.deep.equal([]);
    });

    it("while the registry itself is away: what the token server said is passed on", async () => {
      await other.stop();
      registry.on("GET ping", ({ fail }) => fail(500, "UNKNOWN"), "before auth");
      const answer = await client("GET", "app/tags/list");
      expect(answer.status).to.equal(503);
      expect(errorIn(answer).message).to.contain(`the token server ${other.host} can't be reached`);
    });
  });

  describe("wants an action of its own", () => {
    const neededFor = (method: string | undefined, kind: string): string => {
      if (method === "DELETE") return "*";
      return kind === "tags" ? "metadata_read" : "pull";
    };
    const allows = ({ authorization }: IncomingHttpHeaders, needed: string): boolean =>
      registry.auth.tokens
        .get(authorization?.slice("Bearer ".length) ?? "")
        ?.access.some(({ actions }) => actions.includes(needed)) === true;
    const wants = (error = ""): void => {
      registry.auth.mode = "none";
      registry.on("* *", ({ request, target, fail, response, next }) => {
        const needed = neededFor(request.method, target.kind);
        if (target.kind === "token" || allows(request.headers, needed)) return next();
        const scope = `scope="repository:${target.repository}:${needed}"`;
        const challenge = `Bearer realm="${registry.url}/token",service="x",${scope}${error}`;
        response.setHeader("WWW-Authenticate", challenge);
        return fail(401, "UNAUTHORIZED");
      });
    };
    const scopes = (): (string | null)[] =>
      registry.requests
        .filter(({ target }) => target.kind === "token")
        .map(({ url }) => new URL(url, registry.url).searchParams.get("scope"));

    it(oddRegistry("own-action"), async () => {
      wants();
      expect(await list()).to.equal(200);
      expect((await client("DELETE", "app/manifests/1")).status).to.equal(202);
      expect(scopes()).to.deep.equal([
        "repository:app:pull",
        "repository:app:metadata_read",
        "repository:app:delete",
        "repository:app:*",
      ]);
    });

    it("and keeps the token for it under its own scopes alone", async () => {
      wants(',error="insufficient_scope"');
      await list();
      await list();
      expect(scopes()).to.deep.equal(["repository:app:pull", "repository:app:metadata_read"]);
      const tokens = registry.requests
        .filter(({ target }) => target.kind === "tags")
        .map(({ headers }) => headers.authorization);
      expect(tokens[2]).to.equal(tokens[0]);
      expect(tokens[3]).to.equal(tokens[1]);
      await client("GET", `app/blobs/${sha256(Buffer.from("x"))}`);
      const blob = registry.requests.find(({ target }) => target.kind === "blob");
      expect(blob?.headers.authorization).to.equal(tokens[0]);
    });

    it("that the account has not: the registry's refusal stands", async () => {
      wants();
      registry.on("GET token", ({ query, fail, next }) =>
        query.get("scope")?.endsWith("metadata_read") ? fail(403, "DENIED") : next(),
      );
      const answer = await client("GET", "app/tags/list");
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).message).to.contain("answered 401 UNAUTHORIZED to the account");
    });

    it("in another repository: that is not asked for", async () => {
      registry.auth.challenge = ({ realm, service }) =>
        `Bearer realm="${realm}",service="${service}",scope="repository:secret:pull,push repository:app/x:*"`;
      registry.auth.rights = () => [];
      expect(await list()).to.equal(403);
      expect([...new Set(scopes())]).to.deep.equal(["repository:app:pull"]);
    });

    it(oddRegistry("insufficient-403"), async () => {
      registry.on("GET tags", ({ send, request }) => {
        const token = request.headers.authorization?.slice("Bearer ".length) ?? "";
        const actions = registry.auth.tokens.get(token)?.access[0]?.actions ?? [];
        const challenge = `Bearer realm="${registry.url}/token",error="insufficient_scope",scope="repository:app:metadata_read,pull"`;
        if (actions.includes("metadata_read")) send(200, {}, Buffer.from("{}"));
        else send(403, { "WWW-Authenticate": challenge });
      });
      expect(await list()).to.equal(200);
      expect(count("tags")).to.equal(2);
    });

    it("that ends: no request is sent more than a few times", async () => {
      registry.auth.challenge = ({ realm, service }) =>
        `Bearer realm="${realm}",service="${service}${count("tags")}",scope="repository:app:x_${"y".repeat(count("tags"))}"`;
      revokeTokensAfter(registry, 0);
      registry.on("GET tags", ({ fail, response }) => {
        const { challenge } = registry.auth;
        const wanted = {
          realm: `${registry.url}/token`,
          service: "s",
          scope: "",
          error: undefined,
        };
        response.setHeader("WWW-Authenticate", challenge(wanted));
        fail(401, "UNAUTHORIZED");
      });
      expect(await list()).to.equal(403);
      expect(count("tags")).to.be.within(2, 6);
    });
  });

  describe("has a service for each repository", () => {
    beforeEach(() => {
      registry.auth.challenge = ({ realm, scope }) =>
        `Bearer realm="${realm}",service="svc-${scope.split(":")[1] ?? "none"}",scope="${scope}"`;
      const services = new Map<string, string>();
      registry.on("GET token", async ({ query, next }) => {
        const before = new Set(registry.auth.tokens.keys());
        await next();
        const token = [...registry.auth.tokens.keys()].find((key) => !before.has(key));
        services.set(token ?? "", query.get("service") ?? "");
      });
      registry.on(
        "* *",
        ({ request, target, response, fail, next }) => {
          const token = request.headers.authorization?.slice("Bearer ".length);
          const service = `svc-${target.repository}`;
          if (token === undefined || target.repository === "") return next();
          if (services.get(token) === service) return next();
          const realm = `${registry.url}/token`;
          const scope = `repository:${target.repository}:pull`;
          const challenge = { realm, service, scope, error: undefined };
          response.setHeader("WWW-Authenticate", registry.auth.challenge(challenge));
          request.resume().once("end", () => fail(401, "UNAUTHORIZED"));
          return undefined;
        },
        "before auth",
      );
    });

    it(oddRegistry("service-per-repository"), async () => {
      const names = ["a", "b", "c", "d"];
      const blob = noise("blob", 50_000);
      const begun = await Promise.all(
        names.map(
          async (name) => (await client("POST", `${name}/blobs/uploads/`)).headers.location,
        ),
      );
      const pushed = await Promise.all(
        begun.map(
          async (location = "") => (await client("PATCH", location, { body: blob })).status,
        ),
      );
      expect(pushed).to.deep.equal([202, 202, 202, 202]);
    });

    it("which is learnt once for each", async () => {
      for (let time = 0; time < 3; time++) {
        for (const name of ["a", "b"]) expect(await list(name)).to.equal(200);
      }
      expect(count("tags")).to.equal(8);
      expect([count("ping"), count("token")]).to.deep.equal([1, 4]);
    });

    it("or a realm of 4,000 characters for each: what is known of them is bounded, per connector", async () => {
      proxy.connect("neighbour", registry.url, { credential: alice });
      const neighbour = clientOf(proxy, "neighbour");
      expect((await neighbour("GET", "a/tags/list")).status).to.equal(200);
      registry.auth.challenge = ({ realm, scope }) => {
        const repository = scope.split(":")[1] ?? "none";
        return `Bearer realm="${realm}?${repository}${"x".repeat(3_900)}",service="svc-${repository}"`;
      };
      const asksAgain = async (repository: string, get = client): Promise<boolean> => {
        registry.requests.length = 0;
        expect((await get("GET", `${repository}/tags/list`)).status).to.be.oneOf([200, 404]);
        return count("tags") > 1;
      };
      for (let index = 0; index < 100; index++) {
        expect(await asksAgain(`r${index}`)).to.equal(true);
      }
      expect(await asksAgain("r99")).to.equal(false);
      expect(await asksAgain("r0")).to.equal(true);
      expect(await asksAgain("a", neighbour)).to.equal(false);
    });

    it("without asking /v2/ at every refusal of one", async () => {
      expect(await list("a")).to.equal(200);
      now += 300_000;
      tokenEndpoint.fails(registry, 403);
      kinds();
      for (let time = 0; time < 4; time++) expect(await list("a")).to.equal(403);
      expect([count("ping"), count("token"), count("tags")]).to.deep.equal([1, 1, 0]);
    });
  });

  describe("answers for a token", () => {
    it(oddRegistry("token-redirect"), async () => {
      registry.on("GET /token", ({ rawQuery, send }) =>
        send(308, { Location: `/token/?${rawQuery}` }),
      );
      const answer = ({ send }: Exchange): void => {
        const token = "t0k3n-of-a-redirect";
        const access = [{ type: "repository", name: "app", actions: ["pull"] }];
        const expires = now + 60_000;
        registry.auth.tokens.set(token, { token, user: "alice", access, lifetime: 60, expires });
        send(200, { "Content-Encoding": "gzip" }, gzipSync(JSON.stringify({ token })));
      };
      registry.on("GET /token/", answer, "before auth");
      expect(await list()).to.equal(200);
    });

    it(oddRegistry("large-token"), async () => {
      const grant = registry.auth.answer;
      registry.auth.answer = (given) => {
        const token = `${given.token}${"x".repeat(20_000)}`;
        registry.auth.tokens.set(token, { ...given, token });
        return { ...grant(given), token };
      };
      for (let time = 0; time < 2; time++) expect(await list()).to.equal(200);
      expect(count("token")).to.equal(2);
    });
  });

  it(oddRegistry("utf8-service"), async () => {
    registry.auth.challenge = ({ realm }) =>
      Buffer.from(`Bearer realm="${realm}",service="Реестр"`).toString("latin1");
    registry.on("GET token", ({ query, fail, next }) =>
      query.get("service") === "Реестр" ? next() : fail(400, "UNKNOWN"),
    );
    expect(await list()).to.equal(200);
  });

  it(oddRegistry("token68-challenge"), async () => {
    registry.auth.mode = "basic";
    registry.auth.challenge = () => 'Negotiate oYG2MIGzoAMKAQGhCwYJ==, Basic realm="x"';
    expect(await list()).to.equal(200);
  });

  describe("has its token server in another domain", () => {
    it(oddRegistry("realm-elsewhere"), async () => {
      // A loopback address is no public one, so the guard has to be told that it may be dialled.
      const params = [{ name: "allowedRedirectHosts", value: "localhost" }];
      const other = resources.add(
        await startFakeRegistry({ auth: "bearer", hostname: "localhost" }),
      );
      other.auth.rights = (_, { actions }) => actions;
      other.on("GET token", async ({ next }) => {
        await next();
        for (const [token, grant] of other.auth.tokens) registry.auth.tokens.set(token, grant);
      });
      useRealm(registry, `${other.url}/token`);
      proxy.connect("public", registry.url, { params });
      expect((await clientOf(proxy, "public")("GET", "app/tags/list")).status).to.equal(200);
      proxy.connect("private", registry.url, { params, credential: alice });
      const refused = await clientOf(proxy, "private")("GET", "app/tags/list");
      expect(refused.status).to.equal(403);
      expect(errorIn(refused).message).to.contain("which is in another domain");
      expect(other.requests.map(({ headers }) => headers.authorization)).to.deep.equal([undefined]);
    });

    it("at an address that the guard does not allow: it is not asked, whoever wants a token", async () => {
      const other = resources.add(await startFakeRegistry({ hostname: "localhost" }));
      useRealm(registry, `${other.url}/token`);
      proxy.connect("public", registry.url);
      const answer = await clientOf(proxy, "public")("GET", "app/tags/list");
      expect(answer.status).to.equal(403);
      expect(errorIn(answer).message).to.contain("this registry may not refer to");
      expect(other.requests).to.deep.equal([]);
    });
  });

  describe("denies (403) while a right is new", () => {
    const grants = (actions: readonly string[]): void => {
      registry.auth.rights = () => [...actions];
      registry.on(
        "GET tags",
        ({ request, fail, next }) => {
          const token = request.headers.authorization?.slice("Bearer ".length) ?? "";
          const grant = registry.auth.tokens.get(token);
          if (grant !== undefined && grant.access[0]?.actions.length === 0)
            return fail(403, "DENIED");
          return next();
        },
        "before auth",
      );
    };

    it(oddRegistry("late-right"), async () => {
      grants([]);
      expect(await list()).to.equal(403);
      grants(["pull"]);
      expect(await list()).to.equal(200);
    });

    it("for ever: another token is fetched once in 10 seconds", async () => {
      grants([]);
      for (let time = 0; time < 5; time++) expect(await list()).to.equal(403);
      expect([count("token"), count("tags")]).to.deep.equal([2, 6]);
      now += 10_000;
      expect(await list()).to.equal(403);
      expect([count("token"), count("tags")]).to.deep.equal([3, 8]);
    });
  });

  describe("answers /v2/ to everybody", () => {
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

    it("and a wrong password is sent once in 10 seconds, by many requests for many repositories", async () => {
      proxy.connect("wrong", registry.url, { credential: wrong });
      const other = clientOf(proxy, "wrong");
      hide(404, 401);
      const lists = (prefix: string) =>
        Promise.all(
          Array.from({ length: 20 }, (_, index) => other("GET", `${prefix}${index}/tags/list`)),
        );
      for (const { status } of await lists("x")) expect(status).to.equal(404);
      expect(loginsOf("tags").filter(Boolean)).to.have.length(1);
      now += 9_999;
      await lists("y");
      expect(loginsOf("tags").filter(Boolean)).to.have.length(1);
      now += 1;
      await lists("z");
      expect(loginsOf("tags").filter(Boolean)).to.have.length(2);
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
      const logins = [undefined, "Basic", "Basic", undefined, "Basic", undefined];
      expect(loginsOf("tags")).to.deep.equal(logins);
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
});
