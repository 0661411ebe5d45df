import { expect } from "chai";
import { property } from "../../src/connector/document.ts";
import { readConditions } from "../../src/controller/conditions.ts";
import { type Controller, startController } from "../../src/controller/controller.ts";
import { createLoginSources } from "../../src/credentials/identity-logins.ts";
import { LoginStore } from "../../src/credentials/login-store.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { createServiceAccountTokens } from "../../src/kube/service-account-token.ts";
import { createLoginObserver, identityLoginsOf } from "../../src/roles/identities.ts";
import { createExchangeClient } from "../../src/upstream/exchange-client.ts";
import { createProbe } from "../../src/upstream/probe.ts";
import { createUpstreams, type Upstreams } from "../../src/upstream/upstream.ts";
import { oidcAuth, ownAccounts } from "../credentials/identity-proxy.ts";
import { type FakeApiServer, startFakeApiServer } from "../kube/fake-api-server.ts";
import { recordedLog } from "../standalone/recorded-log.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import {
  addTokenRequests,
  type FakeTokenRequests,
} from "../support/identities/fake-token-requests.ts";
import { type Issuer, startIssuer } from "../support/identities/issuer.ts";
import { addOidcExchanges, type OidcRegistry, robot } from "../support/identities/oidc-registry.ts";
import { type FakeClock, fakeClock } from "./fake-clock.ts";

const minute = 60_000;

describe("the controller, of connectors with an identity", function () {
  this.timeout(30_000);
  const resources = cleanup();
  let server: FakeApiServer;
  let issuer: Issuer;
  let accounts: FakeTokenRequests;
  let registry: FakeRegistry;
  let fake: OidcRegistry;
  let upstreams: Upstreams;
  let clock: FakeClock;
  let log: ReturnType<typeof recordedLog>;

  beforeEach(async () => {
    server = resources.add(await startFakeApiServer());
    issuer = resources.add(await startIssuer());
    accounts = addTokenRequests(server, issuer);
    accounts.addAccount("puller");
    registry = resources.add(await startFakeRegistry({ auth: "bearer", tls: true }));
    const subject = "system:serviceaccount:team-a:puller";
    fake = addOidcExchanges(registry, { issuer: issuer.url, subject });
    fake.lifeMs = 3_600_000;
    upstreams = createUpstreams(15_000);
    resources.defer(() => upstreams.destroy());
    clock = fakeClock(Date.now());
    log = recordedLog();
    server.put("secrets", {
      metadata: { name: "ca", namespace: "team-a" },
      stringData: { "ca.crt": registry.ca },
    });
  });
  afterEach(async () => {
    await resources.stop();
    const tokenRequests = server.requests.filter(({ path }) => !path.endsWith("/token"));
    const shown = JSON.stringify([tokenRequests, connector(), log.lines]);
    for (const secret of [...issuer.issued, ...fake.given]) {
      expect(shown.includes(secret), "a secret is shown").to.equal(false);
    }
  });

  const start = (): Controller => {
    const client = createApiClient({ access: server.access, timeoutMs: 2_000 });
    const store = new LoginStore({
      now: clock.now,
      random: () => 0.5,
      onOutcome: createLoginObserver(log.log),
    });
    const sourceOf = createLoginSources({
      accounts: { tokens: createServiceAccountTokens({ client }), own: ownAccounts },
      audiences: { allowed: [], own: () => [] },
      sendFor: (one, secrets) => createExchangeClient(upstreams, one, secrets),
      now: clock.now,
    });
    const controller = startController({
      client,
      probe: createProbe(upstreams),
      identityLogins: identityLoginsOf({ store, sourceOf }),
      names: {
        installNamespace: "connectors-system",
        clusterDomain: "cluster.local",
        proxyService: "connectors-proxy",
        proxyServiceAccount: "connectors-node",
        controllerServiceAccount: "connectors-controller",
        secretReaderClusterRole: "connectors-secret-reader",
      },
      instance: "controller-1",
      clock,
      random: () => 0,
      log: log.log,
      cacheTiming: { initialRetryMs: 1, maxRetryMs: 20 },
    });
    const stop = async (): Promise<void> => {
      await controller.stop();
      store.stop();
    };
    return resources.add({ ...controller, stop });
  };
  const put = (auth: object = oidcAuth({ preset: "quay", robot }), spec: object = {}): void =>
    server.put("connectors", {
      ...connector(),
      apiVersion: "connectors.alauda.io/v1alpha1",
      kind: "Connector",
      metadata: { name: "quay", namespace: "team-a" },
      spec: {
        connectorClassName: "oci",
        address: registry.url,
        auth,
        caCertSecretRef: { name: "ca" },
        ...spec,
      },
    });
  const connector = () => server.get("connectors", "quay", "team-a");
  const shown = (): Record<string, string> =>
    Object.fromEntries(
      readConditions(connector()).map(({ type, status, reason }) => [type, `${status} ${reason}`]),
    );
  const messageOf = (wanted: string): string =>
    readConditions(connector()).find(({ type }) => type === wanted)?.message ?? "";
  const shows = async (expected: Record<string, string>): Promise<void> => {
    const isShown = (): boolean =>
      Object.entries(expected).every(([type, state]) => shown()[type] === state);
    await eventually(isShown, () => `${JSON.stringify(shown())}\n${log.lines.join("")}`, 5_000);
  };
  /** Lets time pass in steps, and everything happen that is due in each. */
  const pass = async (ms: number): Promise<void> => {
    for (let passed = 0; passed < ms; passed += 30_000) {
      clock.advance(30_000);
      await new Promise((resolve) => setTimeout(resolve, 15));
    }
  };
  const showsWithin = async (ms: number, expected: Record<string, string>): Promise<void> => {
    await pass(ms);
    await shows(expected);
  };
  const record = (): unknown => property(property(connector(), "status"), "identityLogin");
  const ready = {
    SecretReady: "True Obtained",
    AuthReady: "True Authenticated",
    Ready: "True Ready",
  };

  it("shows when a login was obtained, and that the registry takes it", async () => {
    put();
    start();
    await shows(ready);
    expect(messageOf("SecretReady")).to.match(
      /^a login was obtained at \S+Z, which ends at \S+Z; the proxies obtain and renew their own/,
    );
    expect(record()).to.have.keys("version", "obtained", "expires");
    expect(fake.exchanges).to.have.length(1);
    expect(log.lines.join("")).to.contain("oidcAuth of ServiceAccount team-a/puller");
  });

  it("makes one login, however often it probes, also after its end and after a restart", async () => {
    put();
    const first = start();
    await shows(ready);
    const pings = (): number =>
      registry.requests.filter(({ target }) => target.kind === "ping").length;
    const before = pings();
    await showsWithin(30 * minute, ready);
    expect(pings(), "it has probed").to.be.above(before + 3);
    await showsWithin(40 * minute, ready);
    await first.stop();
    start();
    await showsWithin(10 * minute, ready);
    expect(fake.exchanges).to.have.length(1);
  });

  it("makes another one when the spec changes", async () => {
    put();
    start();
    await shows(ready);
    put(oidcAuth({ preset: "jfrog", provider: "our-cluster" }));
    await eventually(
      () => fake.exchanges.length === 2,
      () => "there was no exchange",
      5_000,
    );
    await shows(ready);
  });

  it("says within two minutes that the right was taken, with the command, and takes it back", async () => {
    put();
    start();
    await shows(ready);
    accounts.allow("puller", false);
    await showsWithin(2 * minute, {
      SecretReady: "False TokenForbidden",
      LivenessReady: "Unknown WaitingForSecret",
      Ready: "False TokenForbidden",
    });
    expect(messageOf("SecretReady")).to.contain("kubectl create role connectors-identity-puller");
    expect(record()).to.equal(undefined);
    accounts.allow("puller", true);
    await showsWithin(2 * minute, ready);
    expect(fake.exchanges).to.have.length(2);
  });

  it("makes another login for another ServiceAccount of the name", async () => {
    put();
    start();
    await shows(ready);
    accounts.addAccount("puller");
    await pass(2 * minute);
    await eventually(
      () => fake.exchanges.length === 2,
      () => "there was no exchange",
      5_000,
    );
    await shows(ready);
  });

  it("says that there is no such ServiceAccount", async () => {
    accounts.removeAccount("puller");
    put();
    start();
    await shows({ SecretReady: "False ServiceAccountNotFound" });
    expect(messageOf("SecretReady")).to.contain("kubectl create serviceaccount puller -n team-a");
    accounts.addAccount("puller");
    await showsWithin(2 * minute, ready);
  });

  it("says what the exchange says, and tries it again", async () => {
    fake.failWith = 401;
    fake.failBody = { error: "invalid_grant", message: "the issuer is not known" };
    put();
    start();
    await shows({
      SecretReady: "False ExchangeFailed",
      LivenessReady: "True Answers",
      AuthReady: "Unknown WaitingForSecret",
      Ready: "False ExchangeFailed",
    });
    expect(messageOf("SecretReady")).to.contain("(invalid_grant: the issuer is not known)");
    await pass(10 * minute);
    expect(fake.exchanges.length).to.be.within(3, 16);
    const since = readConditions(connector()).map(({ lastTransitionTime }) => lastTransitionTime);
    expect(new Set(since).size, "no condition flickers").to.equal(1);
    fake.failWith = undefined;
    await showsWithin(3 * minute, ready);
  });

  it("refuses an audience before it requests a token", async () => {
    put(oidcAuth({ preset: "bearer", audience: "sts.amazonaws.com" }));
    start();
    await shows({ SecretReady: "False AudienceRefused" });
    expect(accounts.audiences).to.deep.equal([]);
  });

  it("shows what is wrong with the spec", async () => {
    const cases: readonly [auth: object, spec: object, condition: string, says: string][] = [
      [{ name: "oidcAuth" }, {}, "SecretReady", "spec.auth.serviceAccountRef.name: found nothing"],
      [oidcAuth({}), {}, "AuthReady", "spec.auth.params: preset: found nothing"],
      [oidcAuth({ preset: "quay" }), {}, "AuthReady", "robot: found nothing"],
      [
        { ...oidcAuth({ preset: "bearer" }), secretRef: { name: "a" } },
        {},
        "SecretReady",
        "spec.auth.secretRef",
      ],
      [
        {
          ...oidcAuth({ preset: "bearer" }),
          serviceAccountRef: { name: "a", namespace: "team-b" },
        },
        {},
        "SecretReady",
        "the Connector's own namespace",
      ],
      [{ name: "execAuth" }, {}, "SecretReady", "in standalone mode alone"],
      [
        oidcAuth({ preset: "bearer", tokenFile: "jwt" }),
        {},
        "AuthReady",
        "in standalone mode alone",
      ],
      [oidcAuth({ preset: "bearer" }), { address: "http://a.test" }, "LivenessReady", "https://"],
      [
        oidcAuth({ preset: "bearer" }),
        { addressExtensions: [{ value: "https://b.test" }] },
        "LivenessReady",
        "for the origin of spec.address alone",
      ],
    ];
    start();
    for (const [auth, spec, condition, says] of cases) {
      put(auth, spec);
      await eventually(
        () => messageOf(condition).includes(says) && shown().Ready?.startsWith("False") === true,
        () => `${says}: ${JSON.stringify(readConditions(connector()))}`,
        5_000,
      );
    }
    expect(accounts.audiences).to.deep.equal([]);
  });
});
