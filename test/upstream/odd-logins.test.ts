import { gzipSync } from "node:zlib";
import { expect } from "chai";
import { clientOf, errorIn, type TestClient } from "../proxy/test-client.ts";
import { startTestProxy, type TestProxy } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import type { Exchange } from "../support/fake-registry-exchange.ts";
import { tokenEndpoint, useRealm } from "../support/hostile-auth.ts";
import { noise, sha256 } from "../support/oci-image.ts";
import { oddRegistry } from "../support/registries/odd-registries.ts";

const alice = { username: "alice", password: "secret-of-alice" };

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

  it("promises more of a challenge's body than it sends, which is not waited for", async () => {
    registry.on(
      "GET ping",
      ({ response }) => {
        const challenge = `Bearer realm="${registry.url}/token",service="fake"`;
        response.writeHead(401, { "www-authenticate": challenge, "content-length": "100" });
        response.write("x");
      },
      "before auth",
    );
    expect(await list()).to.equal(200);
  });

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

    /** A client that leaves before there is a response. */
    const leaveEarly = async (): Promise<void> => {
      const gone = new AbortController();
      const left = client("GET", "app/tags/list", { signal: gone.signal }).catch(() => "gone");
      await eventually(
        () => other.requests.length > 0,
        () => "the token server was not asked",
      );
      gone.abort();
      expect(await left).to.equal("gone");
    };

    it("while the one before accepts requests, and never answers", async () => {
      tokenEndpoint.hangs(other);
      useRealm(registry, `${registry.url}/token`);
      expect(await list()).to.equal(200);
      expect(kinds()).to.equal("GET ping 401, GET token 200, GET tags 200");
    });

    it("while the one before never answers, and clients don't wait for it", async () => {
      tokenEndpoint.hangs(other);
      useRealm(registry, `${registry.url}/token`);
      other.requests.length = 0;
      await leaveEarly();
      now += 4_900;
      expect(count("ping")).to.equal(0);
      now += 100;
      expect(await list()).to.equal(200);
    });

    it("not at all: one that takes its time is waited for", async () => {
      const { promise: released, resolve: release } = Promise.withResolvers<void>();
      other.on("GET token", async ({ next }) => {
        await released;
        await next();
      });
      other.requests.length = 0;
      await leaveEarly();
      now += 5_000;
      const listed = list();
      await eventually(
        () => count("ping") > 0,
        () => "the registry was not asked again",
      );
      release();
      expect(await listed).to.equal(200);
      expect(kinds()).to.equal("GET ping 401, GET tags 200");
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

    it("nowhere: then it is asked again once in 10 seconds, and the account as seldom as any that is refused", async () => {
      tokenEndpoint.fails(other, 401);
      other.requests.length = 0;
      for (let time = 0; time < 5; time++) expect(await list()).to.equal(403);
      expect([count("ping"), other.requests.length]).to.deep.equal([1, 2]);
      now += 10_000;
      expect(await list()).to.equal(403);
      expect([count("ping"), other.requests.length]).to.deep.equal([2, 2]);
      now += 50_000;
      expect(await list()).to.equal(403);
      expect([count("ping"), other.requests.length]).to.deep.equal([3, 3]);
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

  describe("has a service for each repository", () => {
    let prefix: string;

    beforeEach(() => {
      prefix = "svc";
      registry.auth.challenge = ({ realm, scope }) =>
        `Bearer realm="${realm}",service="${prefix}-${scope.split(":")[1] ?? "none"}",scope="${scope}"`;
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
          const service = `${prefix}-${target.repository}`;
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

    for (const status of [400, 401, 403]) {
      it(`which is renamed, and the one before refused (${status}): the next request learns it anew`, async () => {
        expect(await list("a")).to.equal(200);
        now += 300_000;
        registry.on("GET token", ({ query, fail, next }) =>
          query.get("service") === "svc-a" ? fail(status, "UNKNOWN") : next(),
        );
        prefix = "renamed";
        expect(await list("a")).to.equal(403);
        expect(await list("a")).to.equal(200);
        expect(await list("a")).to.equal(200);
      });
    }

    it("without asking /v2/ at every refusal of one", async () => {
      expect(await list("a")).to.equal(200);
      now += 300_000;
      tokenEndpoint.fails(registry, 403);
      kinds();
      for (let time = 0; time < 4; time++) expect(await list("a")).to.equal(403);
      expect([count("ping"), count("token"), count("tags")]).to.deep.equal([1, 3, 0]);
    });
  });

  it(oddRegistry("service-per-method"), async () => {
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
        if (target.repository === "") return next();
        const token = request.headers.authorization?.slice("Bearer ".length) ?? "";
        const service = `svc-${request.method}`;
        if (services.get(token) === service) return next();
        const challenge = `Bearer realm="${registry.url}/token",service="${service}"`;
        response.setHeader("WWW-Authenticate", challenge);
        request.resume().once("end", () => fail(401, "UNAUTHORIZED"));
        return undefined;
      },
      "before auth",
    );
    const push = async (content: string): Promise<(number | undefined)[]> => {
      const digest = sha256(Buffer.from(content));
      const { status: head } = await client("HEAD", `app/blobs/${digest}`);
      const { headers, status: begun } = await client("POST", "app/blobs/uploads/");
      const sent = await client("PATCH", headers.location ?? "", { body: content });
      if (sent.status !== 202) return [head, begun, sent.status];
      const path = `${sent.headers.location}?digest=${encodeURIComponent(digest)}`;
      return [head, begun, sent.status, (await client("PUT", path)).status];
    };
    expect(await push("one")).to.deep.equal([404, 202, 503]);
    expect(await push("one")).to.deep.equal([404, 202, 202, 201]);
    registry.requests.length = 0;
    expect(await push("two")).to.deep.equal([404, 202, 202, 201]);
    expect(registry.requests.filter(({ status }) => status === 401)).to.deep.equal([]);
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

  describe("sends challenges in headers of their own", () => {
    const unreadable = ['Custom text="never closed', 'Digest realm="a, b",nonce="x'];
    beforeEach(() => {
      registry.auth.challenge = ({ realm, scope }) => [
        ...unreadable,
        'Basic realm="people, and \\"others\\""',
        `Bearer realm="${realm}",service="a, b",scope="${scope}"`,
      ];
    });

    it(oddRegistry("challenge-headers"), async () => {
      expect(await list()).to.equal(200);
      const asked = registry.requests.find(({ target }) => target.kind === "token");
      expect(new URL(asked?.url ?? "", registry.url).searchParams.get("service")).to.equal("a, b");
    });

    it("in the response to content that can't be sent again, too", async () => {
      const begun = await client("POST", "app/blobs/uploads/");
      registry.auth.mode = "basic";
      registry.auth.challenge = () => [...unreadable, 'Basic realm="people"'];
      const { location = "" } = begun.headers;
      expect((await client("PATCH", location, { body: "x" })).status).to.equal(503);
      expect((await client("PATCH", location, { body: "x" })).status).to.equal(202);
    });
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
});
