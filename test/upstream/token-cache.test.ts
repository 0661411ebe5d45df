import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import type { Credential } from "../../src/connector/credential.ts";
import type { SendRequest } from "../../src/upstream/http-client/http-exchange.ts";
import { createTokenCache, type TokenCache } from "../../src/upstream/token-cache.ts";
import type { TokenRequest } from "../../src/upstream/token-client.ts";
import { createUpstreams } from "../../src/upstream/upstream.ts";
import type { UpstreamError } from "../../src/upstream/upstream-error.ts";
import { testConnector } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { tokenEndpoint } from "../support/hostile-auth.ts";

const alice = { username: "alice", password: "secret-of-alice" };

describe("the cache of registries' tokens", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const undo = cleanup();
  let registry: FakeRegistry;
  let cache: TokenCache;
  let now: number;
  let send: SendRequest;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer", now: () => now }));
    const upstreams = createUpstreams(60_000);
    resources.defer(() => upstreams.destroy());
    const none = { credential: undefined, caCertificates: [] };
    send = upstreams.of(testConnector("harbor", registry.url), none).send;
  });
  beforeEach(() => {
    now = 1_000_000;
    registry.requests.length = 0;
    registry.auth.lifetime = 100;
    cache = createTokenCache(() => now);
  });
  afterEach(undo.stop);
  after(resources.stop);

  const wanting = (
    scopes = ["repository:app:pull"],
    more: Partial<TokenRequest> = {},
  ): TokenRequest => ({
    realm: new URL(`${registry.url}/token`),
    service: "fake-registry",
    scopes,
    credential: alice,
    send,
    ...more,
  });
  const asked = (): number => registry.requests.length;
  const scopesAsked = (): (string | null)[] =>
    registry.requests.map(({ url }) => new URL(url, registry.url).searchParams.get("scope"));

  it("asks once for what many want", async () => {
    undo.defer(tokenEndpoint.slow(registry, 50));
    const tokens = await Promise.all(
      Array.from({ length: 20 }, () => cache.token("owner", wanting())),
    );
    expect(new Set(tokens).size).to.equal(1);
    expect(asked()).to.equal(1);
  });

  it("asks for just what is wanted, with the account and its password", async () => {
    const scopes = ["repository:a/b:pull,push", "repository:c:pull"];
    await cache.token("owner", wanting(scopes));
    const url = new URL(registry.requests[0]?.url ?? "", registry.url);
    expect(url.searchParams.getAll("scope")).to.deep.equal(scopes);
    expect(Object.fromEntries(url.searchParams)).to.include({
      service: "fake-registry",
      account: "alice",
      client_id: "oci-connector",
    });
    const { authorization = "" } = registry.requests[0]?.headers ?? {};
    expect(Buffer.from(authorization.slice(6), "base64").toString()).to.equal(
      "alice:secret-of-alice",
    );
  });

  it("asks without an account where there is none", async () => {
    await cache.token("owner", wanting([], { credential: undefined, service: undefined }));
    expect(registry.requests[0]?.headers.authorization).to.equal(undefined);
    expect(registry.requests[0]?.url).to.equal("/token?client_id=oci-connector");
  });

  it("keeps a token for 85 % of its life", async () => {
    const first = await cache.token("owner", wanting());
    now += 84_999;
    expect(await cache.token("owner", wanting())).to.equal(first);
    now += 1;
    const second = await cache.token("owner", wanting());
    expect(second).to.not.equal(first);
    now += 84_999;
    expect(await cache.token("owner", wanting())).to.equal(second);
    expect(asked()).to.equal(2);
  });

  it("counts a token's life from when it was asked for", async () => {
    undo.defer(
      registry.on("GET token", ({ next }) => {
        now += 85_000;
        return next();
      }),
    );
    const first = await cache.token("owner", wanting());
    expect(await cache.token("owner", wanting())).to.not.equal(first);
  });

  const lifetimes: readonly (readonly [string, object, number])[] = [
    ["none", { token: "x" }, 60],
    ["null", { token: "x", expires_in: null }, 60],
    ["a text", { token: "x", expires_in: "120" }, 120],
    ["nonsense", { token: "x", expires_in: "soon" }, 60],
    ["nothing", { token: "x", expires_in: 0 }, 60],
    ["less than nothing", { token: "x", expires_in: -1 }, 60],
    ["seconds", { token: "x", expires_in: 5 }, 5],
    ["seconds with access_token", { access_token: "x", expires_in: 5 }, 5],
    ["seconds with both", { token: "", access_token: "x", expires_in: 5 }, 5],
  ];
  for (const [name, answer, seconds] of lifetimes) {
    it(`takes a life of ${name} for ${seconds} seconds`, async () => {
      undo.defer(tokenEndpoint.answers(registry, answer));
      expect(await cache.token("owner", wanting())).to.equal("x");
      now += seconds * 850 - 1;
      await cache.token("owner", wanting());
      expect(asked()).to.equal(1);
      now += 1;
      await cache.token("owner", wanting());
      expect(asked()).to.equal(2);
    });
  }

  it("never shares a token between owners, realms, services or scopes", async () => {
    const variants: readonly (readonly [string, TokenRequest])[] = [
      ["owner", wanting()],
      ["another", wanting()],
      ["owner", wanting(["repository:app:pull,push"])],
      ["owner", wanting(["repository:other:pull"])],
      ["owner", wanting(["repository:app:pull", "repository:other:pull"])],
      ["owner", wanting([])],
      ["owner", wanting(undefined, { service: "another" })],
      ["owner", wanting(undefined, { service: undefined })],
      ["owner", wanting(undefined, { realm: new URL(`${registry.url}/token?a`) })],
    ];
    const tokens = new Set<string>();
    for (const [owner, wanted] of variants) tokens.add(await cache.token(owner, wanted));
    expect(tokens.size).to.equal(variants.length);
    for (const [owner, wanted] of variants) tokens.add(await cache.token(owner, wanted));
    expect(tokens.size).to.equal(variants.length);
    expect(asked()).to.equal(variants.length);
  });

  it("shares a token whatever the order of scopes", async () => {
    const one = await cache.token("owner", wanting(["a:b:c", "d:e:f"]));
    expect(await cache.token("owner", wanting(["d:e:f", "a:b:c"]))).to.equal(one);
  });

  it("drops a token that was refused, and none that took its place", async () => {
    const first = await cache.token("owner", wanting());
    cache.drop("owner", wanting(), "another");
    expect(await cache.token("owner", wanting())).to.equal(first);
    cache.drop("owner", wanting(), first);
    const second = await cache.token("owner", wanting());
    expect(second).to.not.equal(first);
    cache.drop("owner", wanting(), first);
    expect(await cache.token("owner", wanting())).to.equal(second);
  });

  const outcome = async (owner: string, wanted: TokenRequest): Promise<string> => {
    try {
      await cache.token(owner, wanted);
      return "token";
    } catch (error) {
      return (error as UpstreamError).fault;
    }
  };

  describe("after a refusal", () => {
    const wrong: Credential = { username: "alice", password: "wrong-password" };

    it("of the account, does not ask again for 60 seconds, whatever is wanted, then for twice the time", async () => {
      const wanted = wanting(undefined, { credential: wrong });
      const answers = await Promise.all([outcome("owner", wanted), outcome("owner", wanted)]);
      expect(answers).to.deep.equal(["AuthenticationFailed", "AuthenticationFailed"]);
      expect(scopesAsked()).to.deep.equal(["repository:app:pull", null]);
      for (const holdMs of [60_000, 120_000, 240_000, 480_000, 600_000, 600_000]) {
        const before = asked();
        now += holdMs - 1;
        expect(await outcome("owner", wanted)).to.equal("AuthenticationFailed");
        expect(await outcome("owner", wanting(["x:y:z"], { credential: wrong }))).to.equal(
          "AuthenticationFailed",
        );
        expect(asked()).to.equal(before);
        now += 1;
        expect(await outcome("owner", wanted)).to.equal("AuthenticationFailed");
        expect(asked()).to.equal(before + 1);
        expect(scopesAsked().at(-1)).to.equal(null);
      }
    });

    it("by one service of a token server, asks for another one", async () => {
      undo.defer(
        registry.on("GET token", ({ query, fail, next }) =>
          query.get("service") === "closed" ? fail(401, "UNAUTHORIZED") : next(),
        ),
      );
      const closed = wanting(undefined, { service: "closed" });
      expect(await outcome("owner", closed)).to.equal("AuthenticationFailed");
      expect(await outcome("owner", wanting())).to.equal("token");
      expect(await outcome("owner", closed)).to.equal("AuthenticationFailed");
    });

    it("of an account, asks for another one", async () => {
      expect(await outcome("wrong", wanting(undefined, { credential: wrong }))).to.equal(
        "AuthenticationFailed",
      );
      expect(await outcome("right", wanting())).to.equal("token");
    });

    it("of what was wanted, asks for something else", async () => {
      undo.defer(
        registry.on("GET token", ({ query, fail, next }) =>
          query.getAll("scope").includes("repository:b:pull") ? fail(403, "DENIED") : next(),
        ),
      );
      const both = wanting(["repository:a:pull,push", "repository:b:pull"]);
      expect(await outcome("owner", both)).to.equal("AccessDenied");
      expect(await outcome("owner", both)).to.equal("AccessDenied");
      expect(asked()).to.equal(2);
      expect(await outcome("owner", wanting(["repository:a:pull,push"]))).to.equal("token");
    });

    it("keeps what it has", async () => {
      const token = await cache.token("owner", wanting());
      expect(await outcome("owner", wanting(["x:y:z"], { credential: wrong }))).to.equal(
        "AuthenticationFailed",
      );
      expect(await cache.token("owner", wanting())).to.equal(token);
    });
  });

  it("asks again at once after any other failure", async () => {
    const stop = tokenEndpoint.fails(registry, 500);
    expect(await outcome("owner", wanting())).to.equal("ConnectionFailed");
    stop();
    expect(await outcome("owner", wanting())).to.equal("token");
  });

  it("is not held up by one that hangs", async () => {
    const stop = tokenEndpoint.hangs(registry);
    const hanging = cache.token("owner", wanting());
    hanging.catch(() => {});
    await sleep(20);
    stop();
    expect(await outcome("owner", wanting(["x:y:z"]))).to.equal("token");
  });

  describe("bounds what it keeps", () => {
    const sized = (owner: string, repository: string): Promise<string> =>
      cache.token(owner, wanting([`repository:${repository}:pull`]));
    const fetchedBy = async (owner: string, repository: string): Promise<number> => {
      const before = asked();
      await sized(owner, repository);
      return asked() - before;
    };

    it("to tokens of 16 KiB: a longer one is used, and not kept", async () => {
      for (const [length, fetches] of [
        [16_384, 1],
        [16_385, 3],
      ] as const) {
        const token = "x".repeat(length);
        undo.defer(tokenEndpoint.answers(registry, { token }));
        const before = asked();
        for (let time = 0; time < 3; time++) {
          expect(await sized(`owner of ${length}`, "a")).to.equal(token);
        }
        expect(asked() - before).to.equal(fetches);
      }
    });

    it("to a share for each owner, who pushes out nobody else's", async () => {
      undo.defer(tokenEndpoint.answers(registry, { token: "x".repeat(16_000) }));
      await sized("neighbour", "a");
      for (let index = 0; index < 300; index++) await sized("owner", `r${index}`);
      expect(await fetchedBy("neighbour", "a")).to.equal(0);
      expect(await fetchedBy("owner", "r299")).to.equal(0);
      expect(await fetchedBy("owner", "r0")).to.equal(1);
    });

    it("in all: the owner that has the most loses something", async () => {
      undo.defer(tokenEndpoint.answers(registry, { token: "x".repeat(16_000) }));
      await sized("neighbour", "a");
      for (let owner = 0; owner < 20; owner++) {
        for (let index = 0; index < 120; index += 40) {
          await Promise.all(
            Array.from({ length: 40 }, (_, offset) => sized(`o${owner}`, `r${index + offset}`)),
          );
        }
      }
      expect(await fetchedBy("neighbour", "a")).to.equal(0);
      const kept = await Promise.all(
        Array.from({ length: 20 }, (_, o) => fetchedBy(`o${o}`, "r0")),
      );
      expect(kept.some((fetches) => fetches > 0)).to.equal(true);
    });

    it("and so do refusals: nobody makes it forget that another's account was refused", async () => {
      const wrong = { username: "alice", password: "wrong-password" };
      const refused = wanting(undefined, { credential: wrong });
      expect(await outcome("neighbour", refused)).to.equal("AuthenticationFailed");
      undo.defer(tokenEndpoint.fails(registry, 403));
      for (let index = 0; index < 5000; index += 50) {
        await Promise.all(
          Array.from({ length: 50 }, (_, offset) =>
            outcome("owner", wanting([`repository:r${index + offset}:pull`])),
          ),
        );
      }
      const before = asked();
      expect(await outcome("neighbour", refused)).to.equal("AuthenticationFailed");
      expect(asked()).to.equal(before);
    });
  });

  it("replaces a token that was denied something once in 10 seconds", async () => {
    const first = await cache.token("owner", wanting());
    expect(cache.dropDenied("owner", wanting(), first)).to.equal(true);
    expect(cache.dropDenied("owner", wanting(), first)).to.equal(true); // another request had it, too
    const second = await cache.token("owner", wanting());
    expect(second).to.not.equal(first);
    expect(cache.dropDenied("owner", wanting(), first)).to.equal(true);
    expect(cache.dropDenied("owner", wanting(), second)).to.equal(false);
    now += 9_999;
    expect(cache.dropDenied("owner", wanting(), second)).to.equal(false);
    expect(await cache.token("owner", wanting())).to.equal(second);
    now += 1;
    expect(cache.dropDenied("owner", wanting(), second)).to.equal(true);
    expect(await cache.token("owner", wanting())).to.not.equal(second);
  });

  it("forgets the oldest of very many, and none that is being fetched", async () => {
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    undo.defer(
      registry.on("GET token", async ({ query, json }) => {
        if (query.get("scope") === "repository:slow:pull") await released;
        json(200, { token: "x" });
      }),
    );
    const slow = cache.token("owner", wanting(["repository:slow:pull"]));
    for (let index = 0; index < 5001; index += 50) {
      await Promise.all(
        Array.from({ length: 50 }, (_, offset) =>
          cache.token("owner", wanting([`repository:r${index + offset}:pull`])),
        ),
      );
    }
    const before = asked();
    await cache.token("owner", wanting(["repository:r5000:pull"]));
    expect(asked()).to.equal(before);
    await cache.token("owner", wanting(["repository:r0:pull"]));
    expect(asked()).to.equal(before + 1);
    const shared = cache.token("owner", wanting(["repository:slow:pull"]));
    release();
    expect(await Promise.all([slow, shared])).to.deep.equal(["x", "x"]);
    expect(asked()).to.equal(before + 1);
  });
});
