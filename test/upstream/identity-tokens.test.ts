import { expect } from "chai";
import { clientOf, errorIn } from "../proxy/test-client.ts";
import { startTestProxy, type TestProxy } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { useRealm } from "../support/hostile-auth.ts";

const identity = {
  username: "<token>",
  password: "identity-of-alice",
  kind: "identityToken",
} as const;

describe("the proxy's login with an identity token", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;

  beforeEach(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    registry.auth.identityTokens.set(identity.password, "alice");
    addImage(registry.repository("app"), "1");
    proxy = resources.add(await startTestProxy());
    proxy.connect("acr", registry.url, { credential: identity });
  });
  afterEach(async () => {
    const seen = JSON.stringify(registry.requests.map(({ url, headers }) => [url, headers]));
    expect(seen, "it is in no URL and no header").not.to.contain(identity.password);
    expect(seen).not.to.contain(Buffer.from(`<token>:${identity.password}`).toString("base64"));
    expect(proxy.log()).not.to.contain(identity.password);
    await resources.stop();
  });

  const kinds = (): string =>
    registry.requests
      .map(({ method, target, status }) => `${method} ${target.kind} ${status}`)
      .join(", ");
  const list = () => clientOf(proxy, "acr")("GET", "app/tags/list");

  it("is a POST to the token server, and its token is used again", async () => {
    for (let time = 0; time < 2; time++) expect((await list()).status).to.equal(200);
    expect(kinds()).to.equal("GET ping 401, POST token 200, GET tags 200, GET tags 200");
    expect([...registry.auth.tokens.values()]).to.have.length(1);
    expect([...registry.auth.tokens.values()][0]).to.deep.include({ user: "alice" });
  });

  it("follows a redirect that keeps its body, within the origin", async () => {
    registry.on("POST token", ({ query, send, next }) =>
      query.has("again") ? next() : send(307, { Location: "/token?again" }),
    );
    expect((await list()).status).to.equal(200);
    expect(kinds()).to.contain("POST token 307, POST token 200");
  });

  it("follows none that would drop its body", async () => {
    registry.on("POST token", ({ send }) => send(302, { Location: "/token?again" }));
    expect(errorIn(await list()).message).to.contain("answered 302 instead of a token");
  });

  it("goes to no token server of another domain", async () => {
    const elsewhere = resources.add(await startFakeRegistry({ auth: "bearer" }));
    useRealm(registry, `http://localhost:${elsewhere.port}/token`);
    expect((await list()).status).to.equal(403);
    expect(elsewhere.requests).to.deep.equal([]);
  });

  it("says what to check where the token server refuses it", async () => {
    registry.auth.identityTokens.set("another", "bob");
    registry.auth.identityTokens.delete(identity.password);
    const refused = await list();
    expect(refused.status).to.equal(403);
    expect(String(refused.body)).to.contain("check whether the identity token");
  });

  it("says what to do where the token server takes none", async () => {
    registry.auth.identityTokens.clear();
    const refused = await list();
    expect(refused.status).to.equal(502);
    expect(String(refused.body)).to.contain("it may take no identity tokens");
  });

  it("is not sent with Basic, whether the registry asks for that or says nothing", async () => {
    registry.auth.mode = "basic";
    const refused = await list();
    expect(refused.status).to.equal(502);
    expect(String(refused.body)).to.contain("with an identity token Bearer alone is supported");
    registry.auth.mode = "none";
    const other = proxy.connect("other", registry.url, { credential: identity });
    registry.on("GET tags", ({ fail }) => fail(403, "DENIED"));
    expect((await clientOf(proxy, other.name)("GET", "app/tags/list")).status).to.equal(403);
    const logins = registry.requests.map(({ headers }) => headers.authorization);
    expect(new Set(logins)).to.deep.equal(new Set([undefined]));
  });
});
