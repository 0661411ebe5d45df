import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { clientOf, type TestClient } from "../proxy/test-client.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { addOidcExchanges, type OidcRegistry, robot } from "../support/identities/oidc-registry.ts";
import { sha256 } from "../support/oci-image.ts";
import { type IdentityProxy, oidcAuth, startIdentityProxy } from "./identity-proxy.ts";

const lifeMs = 3_000;

describe("logins of an identity that live for three seconds", function () {
  this.timeout(60_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let fake: OidcRegistry;
  let fixture: IdentityProxy;
  let client: TestClient;

  beforeEach(async () => {
    fixture = resources.add(await startIdentityProxy());
    registry = resources.add(await startFakeRegistry({ auth: "basic", tls: true }));
    addImage(registry.repository("app"), "1");
    fake = addOidcExchanges(registry, {
      issuer: fixture.issuer.url,
      subject: "system:serviceaccount:team-a:puller",
    });
    fake.lifeMs = lifeMs;
    fixture.connect("it", registry.url, oidcAuth({ preset: "quay", robot }), [registry.ca ?? ""]);
    client = clientOf(fixture.proxy, "it");
  });
  afterEach(resources.stop);

  const pull = async (): Promise<number> => (await client("GET", "app/manifests/1")).status;
  const push = async (content: Buffer): Promise<number> => {
    const begun = await client("POST", "app/blobs/uploads/");
    const { location = "" } = begun.headers;
    const url = new URL(String(location), "http://any");
    url.searchParams.set("digest", sha256(content));
    const target = `${url.pathname}${url.search}`;
    return (await client("PUT", target, { body: content })).status;
  };
  const until = async (
    endsAt: number,
    action: () => Promise<number>,
  ): Promise<readonly number[]> => {
    const statuses: number[] = [];
    while (Date.now() < endsAt) {
      statuses.push(await action());
      await sleep(20);
    }
    return statuses;
  };

  it("pass over six renewals in 20 s of pulls and pushes, none of which fails, with one exchange each", async () => {
    const endsAt = Date.now() + 20_000;
    const pulls = await Promise.all([
      ...Array.from({ length: 4 }, () => until(endsAt, pull)),
      ...Array.from({ length: 2 }, (_, one) =>
        until(endsAt, () => push(Buffer.from(`${one} ${Date.now()}`))),
      ),
    ]);
    expect(new Set(pulls.flat())).to.deep.equal(new Set([200, 201]));
    const { length } = fake.exchanges;
    expect(length).to.be.within(7, 11);
    expect(fixture.outcomes).to.have.length(length);
    expect(fixture.outcomes.filter(({ error }) => error !== undefined)).to.deep.equal([]);
  });

  it("are used until their end while the exchange is down; then there is 503 with Retry-After, and soon another one", async () => {
    // The login is obtained in between, and ends so much later.
    const askedAt = Date.now();
    expect(await pull()).to.equal(200);
    const obtainedAt = Date.now();
    fake.failWith = 503;
    const before = await until(askedAt + 0.85 * lifeMs, pull);
    expect(new Set(before)).to.deep.equal(new Set([200]));
    expect(
      fixture.outcomes.filter(({ error }) => error !== undefined),
      "it was tried",
    ).not.to.be.empty;
    await sleep(obtainedAt + lifeMs - Date.now());
    const refused = await client("GET", "app/manifests/1");
    expect(refused.status).to.equal(503);
    expect(refused.headers["retry-after"]).to.match(/^\d+$/);
    fake.failWith = undefined;
    const recovered = await until(Date.now() + 8_000, pull);
    expect(recovered.at(-1)).to.equal(200);
  });
});
