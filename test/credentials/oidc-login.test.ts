import { expect } from "chai";
import { readBasic } from "../../examples/standalone/token-server.ts";
import { clientOf, errorIn, type TestClient } from "../proxy/test-client.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { useRealm } from "../support/hostile-auth.ts";
import { verifyByJwks } from "../support/identities/issuer.ts";
import { addOidcExchanges, type OidcRegistry, robot } from "../support/identities/oidc-registry.ts";
import { type IdentityProxy, oidcAuth, startIdentityProxy } from "./identity-proxy.ts";

const subject = "system:serviceaccount:team-a:puller";

describe("oidcAuth", function () {
  this.timeout(30_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let fake: OidcRegistry;
  let fixture: IdentityProxy;

  beforeEach(async () => {
    fixture = resources.add(
      await startIdentityProxy({
        allowedAudiences: [{ audience: "our-audience", host: "127.0.0.1:1" }],
      }),
    );
    registry = resources.add(await startFakeRegistry({ auth: "bearer", tls: true }));
    addImage(registry.repository("app"), "1");
    fake = addOidcExchanges(registry, { issuer: fixture.issuer.url, subject });
  });
  afterEach(async () => {
    const secrets = [...fixture.issuer.issued, ...fake.given];
    const shown = [
      fixture.proxy.log(),
      JSON.stringify(fixture.outcomes.map(({ error }) => String(error))),
      JSON.stringify(registry.requests.map(({ url }) => url)),
    ].join("\n");
    for (const secret of secrets)
      expect(shown.includes(secret), "a secret is shown").to.equal(false);
    await resources.stop();
  });

  const connect = (params: Readonly<Record<string, string>>, name = "it"): TestClient => {
    fixture.connect(name, registry.url, oidcAuth(params), [registry.ca ?? ""]);
    return clientOf(fixture.proxy, name);
  };
  const pull = (client: TestClient) => client("GET", "app/manifests/1");
  const push = (client: TestClient) => client("POST", "app/blobs/uploads/");
  const paths = (): readonly string[] => fake.exchanges.map(({ path }) => path);

  const presets: readonly [params: Readonly<Record<string, string>>, path: string][] = [
    [{ preset: "quay", robot }, "/oauth2/federation/robot/token"],
    [{ preset: "jfrog", provider: "our-cluster" }, "/access/api/v1/oidc/token"],
    [{ preset: "rfc8693", tokenPath: "/oauth2/exchange", username: "svc" }, "/oauth2/exchange"],
  ];
  for (const [params, path] of presets) {
    it(`${params.preset}: pulls and pushes with the login of one exchange`, async () => {
      const client = connect(params);
      const responses = await Promise.all([
        ...Array.from({ length: 10 }, () => pull(client)),
        push(client),
      ]);
      expect(responses.map(({ status }) => status)).to.deep.equal([...Array(10).fill(200), 202]);
      expect(paths()).to.deep.equal([path]);
      expect(fixture.accounts.audiences).to.deep.equal([registry.url]);
    });

    it(`${params.preset}: pulls where the registry wants Basic`, async () => {
      registry.auth.mode = "basic";
      expect((await pull(connect(params))).status).to.equal(200);
    });
  }

  it("jfrog: takes the user out of the token's subject, where the answer has none", async () => {
    registry.auth.mode = "basic";
    const token = fixture.issuer.issue({ sub: "jfac@01abc/users/ci" });
    registry.on(
      "POST /access/api/v1/oidc/token",
      ({ json }) => json(200, { access_token: token, expires_in: 60 }),
      "before auth",
    );
    registry.auth.users.set("ci", token);
    expect((await pull(connect({ preset: "jfrog", provider: "our-cluster" }))).status).to.equal(
      200,
    );
  });

  it("rfc8693 without a user: its token is a bearer token, and no token server is asked", async () => {
    const client = connect({ preset: "rfc8693", tokenPath: "/oauth2/exchange" });
    registry.auth.mode = "none";
    registry.on(
      "GET *",
      ({ request, response, fail, next }) => {
        const token = request.headers.authorization?.replace("Bearer ", "");
        if (token === fake.given.at(-1) && token !== undefined) return next();
        response.setHeader("WWW-Authenticate", `Bearer realm="${registry.url}/token"`);
        return fail(401, "UNAUTHORIZED");
      },
      "before auth",
    );
    expect((await pull(client)).status).to.equal(200);
    expect(registry.requests.map(({ target }) => target.kind)).not.to.contain("token");
  });

  for (const preset of ["password", "bearer"]) {
    it(`${preset}: the token itself is the login`, async () => {
      registry.auth.mode = "none";
      const trust = { issuer: fixture.issuer.url, audience: registry.url, subject };
      const tokenIn = (authorization = ""): string =>
        preset === "bearer"
          ? authorization.replace("Bearer ", "")
          : (readBasic(authorization)?.password ?? "");
      registry.on(
        "GET *",
        async ({ request, response, fail, next }) => {
          try {
            await verifyByJwks(tokenIn(request.headers.authorization), trust);
          } catch {
            response.setHeader("WWW-Authenticate", preset === "bearer" ? "Bearer" : "Basic");
            return fail(401, "UNAUTHORIZED");
          }
          return next();
        },
        "before auth",
      );
      const client = connect({ preset, ...(preset === "password" && { username: "jwt" }) });
      for (let time = 0; time < 3; time++) expect((await pull(client)).status).to.equal(200);
      expect(fixture.accounts.audiences).to.deep.equal([registry.url]);
    });
  }

  describe("without the team's Role", () => {
    it("is refused with the command that gives it, and works with it", async () => {
      fixture.accounts.allow("puller", false);
      const client = connect({ preset: "quay", robot });
      const refused = await pull(client);
      expect(refused.status).to.equal(403);
      expect(errorIn(refused).message).to.contain(
        "kubectl create role connectors-identity-puller -n team-a --verb=get,create " +
          "--resource=serviceaccounts,serviceaccounts/token --resource-name=puller && " +
          "kubectl create rolebinding connectors-identity-puller -n team-a --role=connectors-identity-puller " +
          "--serviceaccount=connectors-system:connectors-node --serviceaccount=connectors-system:connectors-controller",
      );
      expect(fake.exchanges).to.deep.equal([]);
      fixture.accounts.allow("puller", true);
      fixture.aheadMs += 5_000;
      expect((await pull(client)).status).to.equal(200);
    });

    it("ends within a minute or two of its use after the right is taken", async () => {
      const client = connect({ preset: "quay", robot });
      expect((await pull(client)).status).to.equal(200);
      fixture.accounts.allow("puller", false);
      expect((await pull(client)).status, "nobody has looked yet").to.equal(200);
      fixture.aheadMs += 100_000;
      expect((await pull(client)).status).to.equal(403);
    });

    it("ends where the ServiceAccount becomes another one of its name", async () => {
      const client = connect({ preset: "quay", robot });
      await pull(client);
      fixture.accounts.addAccount("puller");
      fixture.aheadMs += 100_000;
      expect((await pull(client)).status).to.equal(200);
      expect(fake.exchanges).to.have.length(2);
    });

    it("says that there is no such ServiceAccount", async () => {
      fixture.accounts.removeAccount("puller");
      const refused = await pull(connect({ preset: "quay", robot }));
      expect(refused.status).to.equal(403);
      expect(errorIn(refused).message).to.contain("there is no ServiceAccount team-a/puller");
    });

    it("goes on while the API server is away", async () => {
      const client = connect({ preset: "quay", robot });
      await pull(client);
      await fixture.server.goAway();
      fake.lifeMs = 3_600_000;
      fixture.aheadMs += 40_000;
      expect((await pull(client)).status).to.equal(200);
    });
  });

  describe("an audience", () => {
    const refusal = async (audience: string, address = registry.url): Promise<string> => {
      fixture.connect("other", address, oidcAuth({ preset: "bearer", audience }), [
        registry.ca ?? "",
      ]);
      const refused = await pull(clientOf(fixture.proxy, "other"));
      expect(refused.status).to.equal(403);
      expect(fixture.issuer.issued, "no token was requested").to.deep.equal([]);
      return errorIn(refused).message;
    };

    it("other than the registry's origin is refused, unless the operator allows it for the host", async () => {
      expect(await refusal("our-audience")).to.contain(
        `OIDC_AUDIENCES=our-audience=${registry.host}`,
      );
      expect(await refusal("https://quay.io")).to.contain("wanted the registry's origin");
    });

    for (const audience of [
      "sts.amazonaws.com",
      "STS.amazonaws.com",
      "sts.amazonaws.com.cn",
      "api://AzureADTokenExchange",
      "api://AzureADTokenExchangeChina",
      "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
      "https://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
      "my-project.svc.id.goog",
      "https://kubernetes.default.svc.cluster.local",
      "https://kubernetes.default.svc",
      "kubernetes",
      "connectors-proxy",
      "https://api.test/",
    ]) {
      it(`${audience} is refused, whatever the operator allows`, async () => {
        expect(await refusal(audience)).to.contain(`found the audience ${audience}`);
      });
    }

    it("is never that of an address that is the API server's name", async () => {
      fixture.connect("other", "https://kubernetes.default.svc", oidcAuth({ preset: "bearer" }));
      expect((await pull(clientOf(fixture.proxy, "other"))).status).to.equal(403);
      expect(fixture.issuer.issued).to.deep.equal([]);
    });
  });

  describe("a token that another one was issued for", () => {
    const forgeries: readonly [string, (claims: Record<string, unknown>) => object][] = [
      ["two audiences", (claims) => ({ ...claims, aud: [registry.url, "https://other.test"] })],
      ["another audience", (claims) => ({ ...claims, aud: ["https://other.test"] })],
      ["another subject", (claims) => ({ ...claims, sub: "system:serviceaccount:team-b:puller" })],
      [
        "another UID",
        (claims) => ({ ...claims, "kubernetes.io": { serviceaccount: { uid: "other" } } }),
      ],
    ];
    for (const [name, forge] of forgeries) {
      it(`has ${name}, and is sent nowhere`, async () => {
        fixture.accounts.forge = (claims) => forge(claims) as Record<string, unknown>;
        const client = connect({ preset: "quay", robot });
        expect((await pull(client)).status).to.equal(503);
        expect(fake.exchanges).to.deep.equal([]);
        expect(registry.requests).to.deep.equal([]);
      });
    }
  });

  describe("a token goes to the registry's origin alone", () => {
    let elsewhere: FakeRegistry;
    beforeEach(async () => {
      elsewhere = resources.add(await startFakeRegistry({ auth: "bearer", tls: true }));
    });
    afterEach(() => expect(elsewhere.requests).to.deep.equal([]));

    for (const status of [301, 302, 303, 307, 308]) {
      it(`and not where the exchange redirects by ${status}`, async () => {
        for (const [, path] of presets) {
          registry.on(
            `* ${path as `/${string}`}`,
            ({ send }) => send(status, { Location: `${elsewhere.url}${path}` }),
            "before auth",
          );
        }
        for (const [index, [params]] of presets.entries()) {
          const refused = await pull(connect(params, `it-${index}`));
          expect(refused.status).to.equal(403);
          expect(errorIn(refused).message).to.contain("a redirect, which is not followed");
        }
      });
    }

    it("and neither its login nor itself to a realm elsewhere, whatever the connector allows", async () => {
      useRealm(registry, `https://localhost:${elsewhere.port}/token`);
      for (const [index, params] of [
        { preset: "quay", robot },
        { preset: "password", username: "jwt" },
      ].entries()) {
        const connector = fixture.connect(`it-${index}`, registry.url, oidcAuth(params), [
          registry.ca ?? "",
          elsewhere.ca ?? "",
        ]);
        fixture.proxy.surroundings.connectors.set(`team-a/it-${index}`, {
          ...connector,
          allowedRealmHosts: ["localhost", "127.0.0.1"],
        });
        const refused = await pull(clientOf(fixture.proxy, `it-${index}`));
        expect(refused.status).to.equal(403);
        expect(errorIn(refused).message).to.contain("goes to the registry's own origin alone");
      }
    });

    it("and not to another port of the registry's host", async () => {
      useRealm(registry, `https://127.0.0.1:${elsewhere.port}/token`);
      expect((await pull(connect({ preset: "quay", robot }))).status).to.equal(403);
    });

    it("and not to whoever answers under its name with another certificate", async () => {
      fixture.connect("it", registry.url, oidcAuth({ preset: "quay", robot }), []);
      const refused = await pull(clientOf(fixture.proxy, "it"));
      expect(refused.status).to.equal(503);
      expect(errorIn(refused).message).to.contain("is signed by an authority that is not trusted");
      expect(registry.requests).to.deep.equal([]);
    });
  });

  describe("an exchange that fails", () => {
    const answers: readonly [status: number, body: unknown, client: number, says: string][] = [
      [
        401,
        { error: "invalid_grant", error_description: "issuer is not configured" },
        403,
        "(invalid_grant: issuer is not configured)",
      ],
      [
        403,
        { errors: [{ code: "FORBIDDEN", message: "no such provider" }] },
        403,
        "(FORBIDDEN: no such provider)",
      ],
      [400, "S3CR3T", 403, "answered 400 to the exchange"],
      [400, { message: "x".repeat(5000) }, 403, "answered 400 to the exchange"],
      [500, {}, 503, "answered 500"],
      [503, { error: "busy" }, 503, "answered 503 (busy)"],
      [429, {}, 503, "answered 429"],
    ];
    for (const [status, body, clientStatus, says] of answers) {
      it(`with ${status} ${JSON.stringify(body).slice(0, 40)} says so`, async () => {
        fake.failWith = status;
        fake.failBody = body;
        const refused = await pull(connect({ preset: "quay", robot }));
        expect(refused.status).to.equal(clientStatus);
        expect(errorIn(refused).message).to.contain(says).and.not.contain("S3CR3T");
        expect(errorIn(refused).message.length).to.be.below(1000);
        if (clientStatus === 503) expect(refused.headers["retry-after"]).to.match(/^\d+$/);
      });
    }

    it("shows no token that the answer repeats", async () => {
      fake.failWith = 400;
      registry.on(
        "GET /oauth2/federation/robot/token",
        ({ request, json }) => {
          const token = readBasic(request.headers.authorization)?.password;
          json(400, { error: "invalid_token", message: `${token} is not trusted` });
        },
        "before auth",
      );
      const refused = await pull(connect({ preset: "quay", robot }));
      expect(errorIn(refused).message).to.contain("answered 400 (invalid_token) to the exchange");
    });

    it("is tried once by many requests, and not again at once", async () => {
      fake.failWith = 500;
      const client = connect({ preset: "quay", robot });
      await Promise.all(Array.from({ length: 20 }, () => pull(client)));
      await Promise.all(Array.from({ length: 20 }, () => pull(client)));
      expect(fake.exchanges).to.have.length(1);
      fake.failWith = undefined;
      fixture.aheadMs += 2_000;
      expect((await pull(client)).status).to.equal(200);
    });

    it("with an answer that is no JSON, or has no token", async () => {
      for (const [index, answer] of [
        Buffer.from("<html>"),
        Buffer.from("{}"),
        Buffer.from("[]"),
      ].entries()) {
        const undo = registry.on(
          "GET /oauth2/federation/robot/token",
          ({ send }) => send(200, {}, answer),
          "before auth",
        );
        expect((await pull(connect({ preset: "quay", robot }, `it-${index}`))).status).to.equal(
          403,
        );
        undo();
      }
    });
  });

  it("gets another login where the registry has forgotten the one it gave", async () => {
    const client = connect({ preset: "quay", robot });
    expect((await pull(client)).status).to.equal(200);
    registry.auth.logins.clear();
    registry.auth.tokens.clear();
    fake.lifeMs = 3_600_000;
    fixture.aheadMs += 20_000;
    expect((await pull(client)).status, "it is too young to be replaced").to.equal(403);
    fixture.aheadMs += 40_000;
    expect((await pull(client)).status, "it has ended").to.equal(200);
    registry.auth.logins.clear();
    registry.auth.tokens.clear();
    fixture.aheadMs += 70_000;
    expect((await pull(client)).status, "the registry has refused it").to.equal(200);
    expect(fake.exchanges).to.have.length(3);
  });
});
