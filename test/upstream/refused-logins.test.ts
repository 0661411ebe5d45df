import { expect } from "chai";
import { clientOf, errorIn } from "../proxy/test-client.ts";
import { startTestProxy, type TestProxy } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import type { Exchange } from "../support/fake-registry-exchange.ts";

const alice = { username: "alice", password: "secret-of-alice" };
const wrong = { username: "alice", password: "wrong-password" };

describe("a login that a registry refuses", function () {
  this.timeout(60_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let now: number;
  /** Requests with the account's name that the registry, or its token server, has answered with 401 or 403. */
  let failedLogins: number;

  const names = Array.from({ length: 24 }, (_, index) => `app${index}`);

  const begin = async (auth: "basic" | "bearer"): Promise<void> => {
    now = Date.now();
    failedLogins = 0;
    registry = resources.add(await startFakeRegistry({ auth, now: () => now }));
    for (const name of names) addImage(registry.repository(name), "1");
    registry.on(
      "* *",
      async ({ request, response, next }: Exchange) => {
        response.once("finish", () => {
          const isLogin = request.headers.authorization?.startsWith("Basic ") === true;
          if (isLogin && [401, 403].includes(response.statusCode)) failedLogins += 1;
        });
        await next();
      },
      "before auth",
    );
    proxy = resources.add(await startTestProxy({ now: () => now }));
  };
  afterEach(resources.stop);

  const pull = (name = "app0", connector = "harbor") =>
    clientOf(proxy, connector)("GET", `${name}/manifests/1`);
  const pullAll = async (): Promise<number[]> =>
    (await Promise.all(names.map((name) => pull(name)))).map(({ status }) => status);

  for (const auth of ["basic", "bearer"] as const) {
    describe(`by ${auth === "basic" ? "Basic" : "a token server"}`, () => {
      beforeEach(() => begin(auth));

      /** 24 clients, each of which pulls something of its own, every five seconds for five minutes. */
      const pullForFiveMinutes = async (): Promise<void> => {
        for (const end = now + 300_000; now < end; now += 5_000) {
          expect(new Set(await pullAll())).to.deep.equal(new Set([403]));
        }
      };

      it("is sent four times at most in five minutes, and at once after the Secret has changed", async () => {
        proxy.connect("harbor", registry.url, { credential: wrong });
        await pullForFiveMinutes();
        expect(failedLogins).to.be.within(1, 4);
        const before = failedLogins;
        proxy.connect("harbor", registry.url, { credential: wrong, renewed: alice });
        expect((await pull()).status).to.equal(200);
        expect(failedLogins).to.equal(before);
      });

      it("is sent four times at most after it was good before", async () => {
        proxy.connect("harbor", registry.url, { credential: alice });
        expect((await pull()).status).to.equal(200);
        registry.auth.users.set("alice", "another");
        registry.auth.tokens.clear();
        expect((await pull()).status).to.equal(403);
        await pullForFiveMinutes();
        expect(failedLogins).to.be.within(1, 4);
        registry.auth.users.set("alice", "secret-of-alice");
        now += 600_000;
        expect((await pull()).status).to.equal(200);
      });

      it("is what every client hears, and when to come again", async () => {
        proxy.connect("harbor", registry.url, { credential: wrong });
        for (const elapsedMs of [0, 0, 20_500]) {
          now += elapsedMs;
          const answer = await pull();
          expect(answer.status).to.equal(403);
          expect(errorIn(answer).message).to.contain("refused the connector's login (401)");
          expect(errorIn(answer).detail).to.contain("Secret");
          expect(answer.headers["retry-after"]).to.equal(elapsedMs === 0 ? "60" : "40");
        }
      });

      it("holds back no other connector with the same account", async () => {
        proxy.connect("harbor", registry.url, { credential: wrong });
        proxy.connect("neighbour", registry.url, { credential: alice });
        expect((await pull()).status).to.equal(403);
        expect((await pull("app0", "neighbour")).status).to.equal(200);
        expect((await pull()).status).to.equal(403);
      });

      it("for one repository alone is sent for the others all the same", async () => {
        proxy.connect("harbor", registry.url, { credential: alice });
        const isPrivate = ({ target, query }: Exchange): boolean =>
          auth === "basic"
            ? target.repository === "app0"
            : query.get("scope")?.includes(":app0:") === true;
        registry.on(
          "* *",
          (exchange) =>
            isPrivate(exchange) ? exchange.fail(401, "UNAUTHORIZED") : exchange.next(),
          "before auth",
        );
        for (let minute = 0; minute < 10; minute += 1) {
          const statuses = await pullAll();
          expect(statuses[0]).to.equal(403);
          expect(new Set(statuses.slice(1))).to.deep.equal(new Set([200]));
          registry.auth.tokens.clear();
          now += 60_000;
        }
      });

      it("while the Secret is looked at, is looked at past the caches by each refusal", async () => {
        proxy.connect("harbor", registry.url, { credential: wrong });
        await pull();
        await pull();
        const reads = proxy.surroundings.secretReads.map(({ fresh }) => fresh);
        expect(reads).to.deep.equal([false, true, false, true]);
      });
    });
  }

  it("is held back as well where clients leave at once", async () => {
    await begin("bearer");
    proxy.connect("harbor", registry.url, { credential: wrong });
    for (const end = now + 300_000; now < end; now += 5_000) {
      const gone = new AbortController();
      const asked = failedLogins;
      let isAnswered = false;
      const left = clientOf(proxy, "harbor")("GET", "app0/tags/list", { signal: gone.signal })
        .catch(() => undefined)
        .finally(() => {
          isAnswered = true;
        });
      await eventually(
        () => isAnswered || failedLogins > asked,
        () => "the login was not sent",
      );
      gone.abort();
      await left;
    }
    expect(failedLogins).to.be.within(1, 4);
  });

  describe("with 403, as GitLab's token server does", () => {
    beforeEach(() => begin("bearer"));

    it("is held back as well", async () => {
      proxy.connect("harbor", registry.url, { credential: wrong });
      registry.on("GET token", ({ request, fail, next }) =>
        request.headers.authorization === undefined ? next() : fail(403, "DENIED"),
      );
      for (const end = now + 300_000; now < end; now += 5_000) await pullAll();
      expect(failedLogins).to.be.within(1, 4);
    });

    it("holds nothing but what the account may not have where the account is good", async () => {
      proxy.connect("harbor", registry.url, { credential: alice });
      registry.on("GET token", ({ query, fail, next }) =>
        query.get("scope")?.includes(":app0:") ? fail(403, "DENIED") : next(),
      );
      const statuses = await pullAll();
      expect(statuses[0]).to.equal(403);
      expect(new Set(statuses.slice(1))).to.deep.equal(new Set([200]));
      expect((await pull()).headers["retry-after"]).to.equal("10");
    });
  });

  it("by a service of each repository is sent by a few of them, and not by all", async () => {
    await begin("bearer");
    proxy.connect("harbor", registry.url, { credential: wrong });
    registry.auth.challenge = ({ realm, scope }) =>
      `Bearer realm="${realm}",service="svc-${scope.split(":")[1] ?? "none"}",scope="${scope}"`;
    registry.on("GET ping", ({ json }) => json(200, {}), "before auth");
    for (const end = now + 300_000; now < end; now += 20_000) {
      expect(new Set(await pullAll())).to.deep.equal(new Set([403]));
    }
    expect(failedLogins).to.be.within(1, 6);
  });
});
