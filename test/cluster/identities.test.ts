/** Logins with tokens that a real API server issues, as far as it lets the proxy's own account have them. */
import { randomBytes } from "node:crypto";
import { expect } from "chai";
import type { JSONWebKeySet } from "jose";
import type { ServiceAccountTokens } from "../../src/connector/platform.ts";
import { allowCommand } from "../../src/credentials/service-account.ts";
import type { ApiAccess } from "../../src/kube/api-access.ts";
import { type ApiClient, createApiClient } from "../../src/kube/api-client.ts";
import { createServiceAccountTokens } from "../../src/kube/service-account-token.ts";
import { type AccountProxy, oidcAuth, startAccountProxy } from "../credentials/identity-proxy.ts";
import { clientOf, errorIn } from "../proxy/test-client.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { verifyByJwks } from "../support/identities/issuer.ts";
import { addOidcExchanges, type OidcRegistry, robot } from "../support/identities/oidc-registry.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { accessAs } from "./account-access.ts";
import { type Cluster, startCluster } from "./cluster.ts";

const audience = "https://registry.example.com";

describe("identities of a real API server", function () {
  this.timeout(120_000);
  const resources = cleanup();
  const id = randomBytes(4).toString("hex");
  const [system, team, other] = ["system", "team", "other"].map((name) => `c-${name}-${id}`) as [
    string,
    string,
    string,
  ];
  const own = ["connectors-node", "connectors-controller"].map((name) => ({
    namespace: system,
    name,
  }));
  const puller = { namespace: team, name: "puller" };
  let cluster: Cluster;
  let client: ApiClient;
  let tokens: ServiceAccountTokens;
  let keys: JSONWebKeySet;
  let issuer: string;

  before(async function () {
    this.timeout(30 * 60_000); // building the API server cold
    cluster = resources.add(await startCluster({ nodes: 0 }));
    for (const namespace of [system, team, other]) {
      await cluster.kubectl(["create", "namespace", namespace]);
      resources.defer(() => cluster.kubectl(["delete", "namespace", namespace, "--wait=false"]));
    }
    for (const { namespace, name } of [...own, puller, { ...puller, namespace: other }]) {
      await cluster.kubectl(["create", "serviceaccount", name, "-n", namespace]);
    }
    await cluster.kubectl(["create", "serviceaccount", "builder", "-n", team]);
    client = createApiClient({ access: await accessOf("connectors-node") });
    tokens = createServiceAccountTokens({ client });
    const raw = (path: string): Promise<string> => cluster.kubectl(["get", "--raw", path]);
    keys = JSON.parse(await raw("/openid/v1/jwks")) as JSONWebKeySet;
    ({ issuer } = JSON.parse(await raw("/.well-known/openid-configuration")) as { issuer: string });
  });
  after(resources.stop);

  const accessOf = (name: string): Promise<ApiAccess> =>
    accessAs(cluster, { namespace: system, name }, resources.add(makeTempFolder("account")).path);
  /** Runs the commands that a condition shows, word for word. */
  const allow = async (): Promise<void> => {
    for (const command of allowCommand(puller, own).split(" && ")) {
      const [program, ...args] = command.split(" ");
      expect(program).to.equal("kubectl");
      await cluster.kubectl(args);
    }
    await untilForbidden(false);
  };
  const forbid = async (): Promise<void> => {
    await cluster.kubectl(["delete", "role,rolebinding", "connectors-identity-puller", "-n", team]);
    await untilForbidden(true);
  };
  /** The API server takes a moment to judge by a Role that has come or gone. */
  const untilForbidden = (wanted: boolean): Promise<true> =>
    eventually(
      async () => ((await tokens.find(puller)).state === "forbidden") === wanted,
      () => (wanted ? "the identity may still be used" : "the identity may not be used yet"),
    );

  it("are forbidden until the team allows one of them, and then that one alone", async () => {
    const before = await tokens.find(puller);
    expect(before.state).to.equal("forbidden");
    await allow();
    const found = await tokens.find(puller);
    if (found.state !== "usable") throw new Error(found.reason);
    const demand = { account: puller, uid: found.uid, audience, lifetimeSeconds: 600 };
    const issued = await tokens.request(demand);
    if (issued.state !== "issued") throw new Error(issued.reason);
    const subject = `system:serviceaccount:${team}:puller`;
    const claims = await verifyByJwks(issued.value, { issuer, audience, subject, keys });
    expect(Number(claims.exp) - Number(claims.iat)).to.equal(600);
    expect(issued.expiresAt).to.equal(Number(claims.exp) * 1000);
    for (const account of [
      { namespace: team, name: "builder" },
      { namespace: other, name: "puller" },
      { namespace: system, name: "connectors-node" },
    ]) {
      expect((await tokens.find(account)).state, account.name).to.equal("forbidden");
      const refused = await tokens.request({ ...demand, account });
      expect(refused.state, account.name).to.equal("forbidden");
    }
    for (const path of ["serviceaccounts", "secrets", "pods"]) {
      const list = client.request({ path: `/api/v1/namespaces/${team}/${path}` });
      expect(String(await list.catch(String)), path).to.contain("forbidden");
    }
    await forbid();
    expect((await tokens.find(puller)).state).to.equal("forbidden");
  });

  it("that became others of their name give no token", async () => {
    await allow();
    const found = await tokens.find(puller);
    if (found.state !== "usable") throw new Error(found.reason);
    await cluster.kubectl(["delete", "serviceaccount", "puller", "-n", team]);
    expect((await tokens.find(puller)).state).to.equal("missing");
    await cluster.kubectl(["create", "serviceaccount", "puller", "-n", team]);
    const demand = { account: puller, uid: found.uid, audience, lifetimeSeconds: 600 };
    const error = await tokens.request(demand).catch((reason: unknown) => String(reason));
    expect(error).to.contain("has issued another token");
    await forbid();
  });

  describe("behind a proxy", () => {
    let registry: FakeRegistry;
    let fake: OidcRegistry;
    let fixture: AccountProxy;

    before(async () => {
      registry = resources.add(await startFakeRegistry({ auth: "bearer", tls: true }));
      addImage(registry.repository("app"), "1");
      const subject = `system:serviceaccount:${team}:puller`;
      fake = addOidcExchanges(registry, { issuer, subject, keys });
      fixture = resources.add(await startAccountProxy({ client, own }));
    });

    for (const params of [
      { preset: "quay", robot },
      { preset: "jfrog", provider: "our-cluster" },
      { preset: "rfc8693", tokenPath: "/oauth2/exchange", username: "svc" },
    ]) {
      it(`pull and push by ${params.preset}, until the Role is taken away`, async () => {
        const { preset } = params;
        fixture.connect(preset, registry.url, oidcAuth(params), [registry.ca ?? ""], team);
        const client = clientOf(fixture.proxy, preset);
        const pull = () => client("GET", "app/manifests/1");
        const forbidden = await pull();
        expect(forbidden.status).to.equal(403);
        expect(errorIn(forbidden).message).to.contain(allowCommand(puller, own));
        await allow();
        fixture.aheadMs += 5_000;
        expect((await pull()).status).to.equal(200);
        expect((await client("POST", "app/blobs/uploads/")).status).to.equal(202);
        await forbid();
        fixture.aheadMs += 100_000;
        expect((await pull()).status).to.equal(403);
        expect(fake.exchanges.at(-1)?.status).to.equal(200);
      });
    }
  });
});
