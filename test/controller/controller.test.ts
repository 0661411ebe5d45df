import { expect } from "chai";
import { createAuthority } from "../../src/certificate-authority.ts";
import { property } from "../../src/connector/document.ts";
import type { UpstreamSecrets } from "../../src/connector/platform.ts";
import type { Condition } from "../../src/controller/conditions.ts";
import { readConditions } from "../../src/controller/conditions.ts";
import {
  type Controller,
  type ReconcileReport,
  startController,
} from "../../src/controller/controller.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import type { KubeObject } from "../../src/kube/object-store.ts";
import type { ProbeFinding } from "../../src/upstream/probe.ts";
import {
  type FakeApiServer,
  type FakeRequest,
  startFakeApiServer,
  statusOf,
} from "../kube/fake-api-server.ts";
import { recordedLog } from "../standalone/recorded-log.ts";
import { makeCertificate } from "../support/certificates.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeClock, fakeClock } from "./fake-clock.ts";
import { noIdentities } from "./sample-connector.ts";

const minute = 60_000;
const alive: ProbeFinding = { ok: true, reason: "Reachable", message: "it answers" };
const loggedIn: ProbeFinding = {
  ok: true,
  reason: "LoggedIn",
  message: "the credential is accepted",
};
type Failed = Extract<ProbeFinding, { ok: false }>;
const failed = (reason: Failed["reason"]): ProbeFinding => ({
  ok: false,
  reason,
  message: `${reason}!`,
});
const passwords = ["correct horse", "battery staple"];
const [right, wrong] = passwords as [string, string];

describe("startController()", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let server: FakeApiServer;
  let clock: FakeClock;
  let reconciled: ReconcileReport[];
  let log: ReturnType<typeof recordedLog>;
  /** What the registry says, and with which Secrets it was asked. */
  let liveness: ProbeFinding;
  let asked: UpstreamSecrets[];

  beforeEach(async () => {
    server = resources.add(await startFakeApiServer());
    clock = fakeClock();
    reconciled = [];
    log = recordedLog();
    liveness = alive;
    asked = [];
  });
  afterEach(async () => {
    await resources.stop();
    const written = JSON.stringify([server.requests, log.lines]);
    for (const password of passwords) expect(written).not.to.contain(password);
  });

  const ask = async (_connector: unknown, secrets: UpstreamSecrets) => {
    asked.push(secrets);
    const isWrong = secrets.credential?.password === wrong;
    return { liveness, auth: isWrong ? failed("AuthenticationFailed") : loggedIn };
  };
  const start = (probe: Parameters<typeof startController>[0]["probe"] = ask): Controller =>
    resources.add(
      startController({
        client: createApiClient({ access: server.access, timeoutMs: 2_000 }),
        probe,
        identityLogins: noIdentities,
        names: {
          installNamespace: "connectors-system",
          clusterDomain: "cluster.local",
          proxyService: "connectors-proxy",
          proxyServiceAccount: "connectors-proxy",
          controllerServiceAccount: "connectors-controller",
          secretReaderClusterRole: "connectors-secret-reader",
        },
        instance: "controller-1",
        clock,
        random: () => 0,
        log: log.log,
        onReconcile: (one) => reconciled.push(one),
        cacheTiming: { initialRetryMs: 1, maxRetryMs: 20 },
      }),
    );

  const put = (spec: object = {}, name = "harbor"): void => {
    const before = server.get("connectors", name, "team-a");
    server.put("connectors", {
      ...before,
      apiVersion: "connectors.alauda.io/v1alpha1",
      kind: "Connector",
      metadata: { name, namespace: "team-a" },
      spec: { connectorClassName: "oci", address: "https://harbor.example.com", ...spec },
    });
  };
  const withSecret = { auth: { name: "tokenAuth", secretRef: { name: "login" } } };
  const putSecret = (name: string, data: Readonly<Record<string, string>>, more = {}): void =>
    server.put("secrets", {
      metadata: { name, namespace: "team-a", ...more },
      type: "kubernetes.io/basic-auth",
      data: Object.fromEntries(
        Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString("base64")]),
      ),
    });
  const putLogin = (password = right): void => putSecret("login", { username: "robot", password });

  const connector = (name = "harbor"): KubeObject | undefined =>
    server.get("connectors", name, "team-a");
  const conditions = (name?: string): readonly Condition[] => readConditions(connector(name));
  const shown = (name?: string): Record<string, string> =>
    Object.fromEntries(
      conditions(name).map(({ type, status, reason }) => [type, `${status} ${reason}`]),
    );
  /** Waits until a condition is so, and all of this generation. */
  const shows = async (type: string, expected: string, name?: string): Promise<Condition> => {
    await eventually(
      () => shown(name)[type] === expected,
      () => `${type} is not ${expected}: ${JSON.stringify(shown(name))}\n${log.lines.join("")}`,
      5_000,
    );
    const generation = property(connector(name)?.metadata, "generation");
    for (const one of conditions(name)) expect(one.observedGeneration).to.equal(generation);
    return conditions(name).find((one) => one.type === type) as Condition;
  };
  const isReady = (name?: string): Promise<Condition> => shows("Ready", "True Ready", name);
  const service = (): KubeObject | undefined => server.get("services", "c-harbor", "team-a");
  const role = (): KubeObject | undefined =>
    server.get("roles", "connectors-proxy-secrets", "team-a");
  const requests = (filter: (request: FakeRequest) => boolean): number =>
    server.requests.filter(filter).length;
  const statusWrites = (): number =>
    requests(({ method, path }) => method === "PATCH" && path.endsWith("/status"));
  const until = (holds: () => boolean, what: string): Promise<true> =>
    eventually(
      () => holds(),
      () => `${what}\n${log.lines.join("")}`,
      5_000,
    );
  /** Lets ten seconds pass in each moment, as long as something is waited for. */
  const inTime = async <T>(action: () => Promise<T>): Promise<T> => {
    const timer = setInterval(() => clock.advance(10_000), 5);
    try {
      return await action();
    } finally {
      clearInterval(timer);
    }
  };
  /** Waits until nothing is looked at any more. */
  const isIdle = async (): Promise<void> => {
    let before = -1;
    while (before !== server.requests.length) {
      before = server.requests.length;
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  };
  const events = (): readonly string[] =>
    server.requests
      .filter(({ method, path }) => method === "POST" && path.endsWith("/events"))
      .map(({ body }) => `${property(body, "type")} ${property(body, "reason")}`);

  /** An event is written after the status that it tells of. */
  const tells = (...expected: readonly string[]): Promise<true> =>
    until(() => events().join() === expected.join(), `the events are ${events().join()}`);

  describe("for a connector with a Secret", () => {
    it("makes the Service, lets the proxy read the Secret, and says that all is well", async () => {
      put(withSecret);
      putLogin();
      start();
      await isReady();
      expect(shown()).to.deep.equal({
        ConnectorClassReady: "True ConnectorClassFound",
        SecretReady: "True SecretFound",
        LivenessReady: "True Reachable",
        AuthReady: "True LoggedIn",
        ProxyServiceReady: "True ServiceFound",
        CACertReady: "True NoCACert",
        Ready: "True Ready",
      });
      expect(property(connector(), "status")).to.deep.include({
        observedGeneration: 1,
        proxy: {
          httpAddress: {
            url: "http://c-harbor.team-a.svc.cluster.local/namespaces/team-a/connectors/harbor",
          },
        },
      });
      expect(service()).to.have.deep.property("spec", {
        type: "ExternalName",
        externalName: "connectors-proxy.connectors-system.svc.cluster.local",
        ports: [
          { name: "http", port: 80, protocol: "TCP" },
          { name: "https", port: 443, protocol: "TCP" },
        ],
      });
      expect(service()?.metadata).to.deep.include({
        labels: {
          "app.kubernetes.io/managed-by": "oci-connector",
          "connectors.alauda.io/connector": "harbor",
        },
        ownerReferences: [
          {
            apiVersion: "connectors.alauda.io/v1alpha1",
            kind: "Connector",
            name: "harbor",
            uid: connector()?.metadata.uid,
            controller: true,
          },
        ],
      });
      expect(JSON.stringify(role())).to.contain('"resourceNames":["login"]');
      expect(asked).to.deep.equal([
        { credential: { username: "robot", password: right }, caCertificates: [] },
      ]);
      await tells("Normal Ready");
      await until(() => reconciled.length > 1, "nobody is told of it");
      expect(reconciled[0]).to.include({ connector: "team-a/harbor", outcome: "not-ready" });
      expect(reconciled[1]).to.include({ connector: "team-a/harbor", outcome: "ready" });
      expect([...(reconciled[1]?.conditions ?? [])]).to.deep.equal(
        conditions().map(({ type, status }) => [type, status]),
      );
    });

    it("takes one for anonymous that names none", async () => {
      put();
      start();
      await isReady();
      expect(shown().SecretReady).to.equal("True SecretOptional");
      expect(asked[0]?.credential).to.equal(undefined);
      expect(role()).to.equal(undefined);
    });

    it("says of one that works for now what the next release refuses", async () => {
      const repositories = Array<string>(1_001).fill("app");
      put({ params: [{ name: "rules", value: [{ verbs: ["pull"], repositories }] }] });
      start();
      await isReady();
      const { message } = await shows("ConnectorClassReady", "True SpecDeprecated");
      expect(message).to.contain("spec.params.0.value: found 1001 patterns of 3003 bytes");
      put({ params: [{ name: "rules", value: [] }] });
      await shows("ConnectorClassReady", "True ConnectorClassFound");
    });

    it("waits for a Secret that is missing, takes it when it comes, and sees it go", async () => {
      put(withSecret);
      start();
      const { message } = await shows("SecretReady", "False SecretNotFound");
      expect(message).to.contain("there is no Secret team-a/login: create it");
      expect(shown()).to.include({
        LivenessReady: "Unknown WaitingForSecret",
        AuthReady: "Unknown WaitingForSecret",
        ProxyServiceReady: "True ServiceFound",
        Ready: "False SecretNotFound",
      });
      expect(asked).to.deep.equal([]);
      putLogin();
      await inTime(() => isReady());
      server.remove("secrets", "login", "team-a");
      await inTime(() => shows("Ready", "False SecretNotFound"));
      await tells("Warning SecretNotFound", "Normal Ready");
    });

    it("says what is wrong with a Secret, and not what is in it", async () => {
      put(withSecret);
      putLogin(`${right}\n`);
      start();
      const { message } = await shows("Ready", "False SecretInvalid");
      expect(message).to.contain("password: found a value that ends in a newline");
    });

    it("reads of a pull secret the entry for the address, and says where there is none", async () => {
      const pullSecret = (host: string): void =>
        server.put("secrets", {
          metadata: { name: "login", namespace: "team-a" },
          type: "kubernetes.io/dockerconfigjson",
          stringData: {
            ".dockerconfigjson": JSON.stringify({
              auths: { [host]: { username: "robot", password: right } },
            }),
          },
        });
      put(withSecret);
      pullSecret("ghcr.io");
      start();
      const { message } = await shows("Ready", "False SecretInvalid");
      expect(message)
        .to.contain("found no entry for this registry")
        .and.contain("harbor.example.com");
      expect(message).not.to.contain("ghcr.io");
      expect(asked).to.deep.equal([]);
      pullSecret("harbor.example.com");
      await inTime(() => isReady());
      expect(asked[0]?.credential).to.deep.equal({ username: "robot", password: right });
    });

    it("names the command that lets it read a Secret", async () => {
      put({ caCertSecretRef: { name: "ca" }, ...withSecret });
      server.intercept = ({ method, path }) =>
        method === "GET" && path.startsWith("/api/v1/namespaces/team-a/secrets/")
          ? { status: 403, body: statusOf(403, "forbidden") }
          : undefined;
      start();
      const { message } = await shows("SecretReady", "False SecretForbidden");
      const command =
        "`kubectl create rolebinding connectors-secret-reader -n team-a " +
        "--clusterrole=connectors-secret-reader " +
        "--serviceaccount=connectors-system:connectors-controller`";
      expect(message).to.contain(command);
      expect(shown().CACertReady).to.equal("False SecretForbidden");
      // It can't give away what it has not.
      expect(role()).to.equal(undefined);
      server.intercept = undefined;
      putLogin();
      await inTime(() => isReady());
      expect(role()).not.to.equal(undefined);
    });

    it("is not ready where the proxy can't be given access to a namespace's Secrets", async () => {
      put(withSecret);
      putLogin();
      server.put("roles", {
        metadata: { name: "connectors-proxy-secrets", namespace: "team-a" },
        rules: [],
      });
      start();
      await shows("SecretReady", "False ProxyAccessDenied");
      expect(asked).to.deep.equal([]);
    });

    it("trusts the certificates of its own Secret, and those for all", async () => {
      const [own, shared] = await Promise.all(
        ["own", "shared"].map((name) => createAuthority(name, new Date())),
      );
      put({ caCertSecretRef: { name: "ca" } });
      start();
      await isReady();
      expect(shown().CACertReady).to.equal("False SecretNotFound");
      putSecret("ca", { "ca.crt": "no certificate" });
      await inTime(() => shows("CACertReady", "False InvalidPEM"));
      putSecret("ca", { "ca.crt": own?.certificate ?? "" });
      const { message } = await inTime(() => shows("CACertReady", "True Valid"));
      expect(message).to.contain("the certificate of an issuing authority alone suffices");
      const { length } = asked;
      putSecret(
        "all",
        { "ca.crt": shared?.certificate ?? "" },
        { namespace: "connectors-system", labels: { "connectors.cpaas.io/ca-cert": "true" } },
      );
      await until(() => asked.length > length, "the registry is not asked again");
      expect(asked.at(-1)?.caCertificates).to.deep.equal(
        [own, shared].map((authority) => authority?.certificate.trim()),
      );
      expect(JSON.stringify(role())).to.contain('"resourceNames":["ca"]');
    });
  });

  it("shows the registry the client certificate of a Secret, once that is right", async () => {
    put({ params: [{ name: "clientCertSecret", value: "client" }] });
    start();
    const missing = await shows("SecretReady", "False SecretNotFound");
    expect(missing.message).to.contain("tls.crt and tls.key");
    const { certificate, privateKey } = await makeCertificate({ name: "client" });
    putSecret("client", { "tls.crt": certificate, "tls.key": privateKey });
    const wrong = await inTime(() => shows("SecretReady", "False SecretInvalid"));
    expect(wrong.message).to.contain("kubernetes.io/tls");
    expect(wrong.message).to.not.contain(privateKey.split("\n")[1]);
    server.put("secrets", {
      metadata: { name: "client", namespace: "team-a" },
      type: "kubernetes.io/tls",
      data: Object.fromEntries(
        Object.entries({ "tls.crt": certificate, "tls.key": privateKey }).map(([key, value]) => [
          key,
          Buffer.from(value).toString("base64"),
        ]),
      ),
    });
    await inTime(() => isReady());
    expect(asked.at(-1)?.clientCertificate?.privateKey).to.equal(privateKey);
    expect(JSON.stringify(role())).to.contain('"resourceNames":["client"]');
  });

  describe("for the certificates that every connector trusts", () => {
    const bundle = (): unknown =>
      property(
        property(server.get("configmaps", "connectors-shared-cas", "connectors-system"), "data"),
        "ca.crt",
      );
    const inSystem = {
      namespace: "connectors-system",
      labels: { "connectors.cpaas.io/ca-cert": "true" },
    };
    const isBundle = (expected: readonly string[]): Promise<true> =>
      until(
        () => bundle() === expected.toSorted().join(""),
        `the ConfigMap has ${String(bundle()).length} characters`,
      );

    it("keeps a ConfigMap with them, and nothing else of their Secrets", async () => {
      const [one = "", other = ""] = await Promise.all(
        ["one", "other"].map(
          async (name) => `${(await createAuthority(name, new Date())).certificate.trim()}\n`,
        ),
      );
      start();
      await isBundle([]);
      putSecret("first", { "ca.crt": one, password: right }, inSystem);
      putSecret("second", { "any.pem": other + one }, inSystem);
      putSecret("unlabelled", { "ca.crt": other }, { namespace: "connectors-system" });
      await isBundle([one, other]);
      expect(JSON.stringify(server.get("configmaps", "connectors-shared-cas", inSystem.namespace)))
        .to.contain("managed-by")
        .and.not.contain(right);
      server.remove("secrets", "second", "connectors-system");
      await isBundle([one]);
      server.remove("configmaps", "connectors-shared-cas", "connectors-system");
      await isBundle([one]);
    });
  });

  describe("for a document that is wrong", () => {
    it("makes nothing for another class", async () => {
      put({ connectorClassName: "git", ...withSecret });
      start();
      const { message } = await shows("Ready", "False ConnectorClassNotFound");
      expect(message).to.contain('found "git", wanted "oci"');
      expect(shown()).to.include({
        SecretReady: "Unknown WaitingForConnectorClass",
        ProxyServiceReady: "Unknown WaitingForConnectorClass",
        CACertReady: "Unknown WaitingForConnectorClass",
      });
      expect([service(), role()]).to.deep.equal([undefined, undefined]);
      put(withSecret);
      putLogin();
      await isReady();
    });

    it("says of one that is too large how large it may be, and goes on with it once it is smaller", async () => {
      put({ ...withSecret, params: [{ name: "x", value: "x".repeat(600_000) }] });
      putLogin();
      start();
      const { message } = await shows("Ready", "False SpecInvalid");
      expect(message).to.match(/metadata: found an object of 60\d{4} bytes, wanted at most 524288/);
      await isIdle();
      put(withSecret);
      await isReady();
    });

    it("says what is wrong with the address, and takes access back", async () => {
      put(withSecret);
      putLogin();
      start();
      await isReady();
      await isIdle();
      put({ ...withSecret, address: "harbor" });
      await shows("Ready", "False AddressInvalid");
      expect(shown()).to.include({
        ConnectorClassReady: "True ConnectorClassFound",
        SecretReady: "Unknown WaitingForLiveness",
        LivenessReady: "False AddressInvalid",
        ProxyServiceReady: "True ServiceFound",
      });
      await until(() => role() === undefined, "the proxy may still read the Secret");
    });
  });

  describe("for a registry", () => {
    it("that is away, waits, and sees it come back", async () => {
      put(withSecret);
      putLogin();
      liveness = failed("ConnectionFailed");
      start();
      await shows("Ready", "False ConnectionFailed");
      expect(shown().AuthReady).to.equal("Unknown WaitingForLiveness");
      liveness = alive;
      await inTime(() => isReady());
      await tells("Warning ConnectionFailed", "Normal Ready");
    });

    it("that refuses the login, leaves the account alone, also after a restart", async () => {
      put(withSecret);
      putLogin(wrong);
      const first = start();
      await shows("Ready", "False AuthenticationFailed");
      const logins = (): number =>
        asked.filter(({ credential }) => credential !== undefined).length;
      expect(logins()).to.equal(1);
      await isIdle();
      await first.stop();
      start();
      await until(() => asked.length > 1, "the registry is not asked after a restart");
      await isIdle();
      expect(logins()).to.equal(1);
      expect(shown()).to.include({
        LivenessReady: "True Reachable",
        AuthReady: "False AuthenticationFailed",
      });
      put({ ...withSecret, params: [] }); // as good as any change of the spec
      await until(() => logins() === 2, "another spec is not tried");
      await isIdle();
      clock.advance(3 * minute);
      await isIdle();
      expect(logins()).to.equal(2);
      putLogin(right);
      await inTime(() => isReady());
      const wrongs = asked.filter(({ credential }) => credential?.password === wrong);
      expect(wrongs).to.have.length(2);
      expect(property(connector(), "status")).not.to.have.property("authProbe");
    });

    it("shows within a minute that the Secret has changed, which it does not watch, and asks at once then", async () => {
      put(withSecret);
      putLogin();
      start();
      await isReady();
      await isIdle();
      const { length } = asked;
      clock.advance(minute);
      await isIdle();
      expect(asked).to.have.length(length);
      putLogin(wrong);
      clock.advance(minute);
      await shows("Ready", "False AuthenticationFailed");
      expect(asked).to.have.length(length + 1);
      await isIdle();
      putLogin(right);
      clock.advance(minute);
      await isReady();
      expect(asked).to.have.length(length + 2);
    });

    it("asks it every few minutes, and writes nothing where nothing changes", async () => {
      put(withSecret);
      putLogin();
      start();
      await isReady();
      await isIdle();
      const writes = requests(({ method }) => method !== "GET");
      // Less than an hour, after which the time of the last probe is written.
      for (let round = 0; round < 4; round += 1) {
        const { length } = asked;
        clock.advance(7 * minute);
        await until(() => asked.length > length, "the registry is not asked");
        await isIdle();
      }
      expect(requests(({ method }) => method !== "GET")).to.equal(writes);
    });

    it("shows a new connector at once, before a slow registry has answered", async () => {
      put();
      const { promise, resolve } = Promise.withResolvers<void>();
      start(async (connector, secrets) => {
        await promise;
        return ask(connector, secrets);
      });
      await shows("LivenessReady", "Unknown Probing");
      expect(shown().Ready).to.equal("Unknown Probing");
      resolve();
      await isReady();
    });

    it("survives a probe that fails by itself, and logs why", async () => {
      put();
      start(async () => {
        throw new TypeError("a mistake of ours");
      });
      await shows("Ready", "False ProbeFailed");
      expect(log.count("a probe has failed", "a mistake of ours")).to.equal(1);
    });
  });

  describe("for the Service", () => {
    it("leaves a foreign one alone, and makes its own when that is gone", async () => {
      const metadata = { name: "c-harbor", namespace: "team-a" };
      server.put("services", { metadata, spec: { type: "ClusterIP" } });
      put();
      start();
      const { message } = await shows("Ready", "False ServiceConflict");
      expect(message).to.contain("kubectl delete service c-harbor -n team-a");
      expect(service()).to.have.deep.property("spec", { type: "ClusterIP" });
      server.remove("services", "c-harbor", "team-a");
      await inTime(() => isReady());
    });

    it("puts it back at once when it is deleted or changed", async () => {
      put();
      start();
      await isReady();
      server.remove("services", "c-harbor", "team-a");
      await until(() => service() !== undefined, "the Service is still away");
      const found = service() as KubeObject;
      server.put("services", { ...found, spec: { type: "ExternalName", externalName: "evil" } });
      await until(
        () => JSON.stringify(service()).includes("connectors-proxy.connectors-system"),
        "the Service still leads elsewhere",
      );
      await isReady();
    });

    it("shows what the API server has against it", async () => {
      put();
      server.intercept = ({ method, path }) =>
        method === "POST" && path.endsWith("/services")
          ? { status: 403, body: statusOf(403, "exceeded quota") }
          : undefined;
      start();
      const { message } = await shows("Ready", "False ServiceRefused");
      expect(message).to.contain("exceeded quota");
    });
  });

  describe("when a connector is gone", () => {
    it("takes the proxy's access back, and makes nothing again", async () => {
      put(withSecret);
      putLogin();
      start();
      await isReady();
      server.remove("connectors", "harbor", "team-a");
      await until(() => role() === undefined, "the proxy may still read the Secret");
      server.remove("services", "c-harbor", "team-a"); // as Kubernetes does
      await until(() => reconciled.at(-1)?.outcome === "gone", "nobody has looked");
      await isIdle();
      expect(service()).to.equal(undefined);
    });

    it("makes no Service for one that it has not yet seen go", async () => {
      put();
      start();
      await isReady();
      await isIdle();
      server.intercept = ({ path }) =>
        path.endsWith("/connectors/harbor") ? { status: 404, body: statusOf(404, "") } : undefined;
      server.remove("services", "c-harbor", "team-a");
      await until(() => reconciled.at(-1)?.outcome === "gone", "nobody has looked");
      expect(service()).to.equal(undefined);
    });

    it("takes access back that was given before it was started", async () => {
      const metadata = {
        name: "connectors-proxy-secrets",
        namespace: "team-z",
        labels: { "app.kubernetes.io/managed-by": "oci-connector" },
      };
      server.put("roles", { metadata });
      server.put("rolebindings", { metadata });
      start();
      await until(
        () => server.get("roles", metadata.name, "team-z") === undefined,
        "the Role is still there",
      );
      expect(server.get("rolebindings", metadata.name, "team-z")).to.equal(undefined);
    });

    it("leaves one alone that is being deleted", async () => {
      server.put("connectors", {
        apiVersion: "connectors.alauda.io/v1alpha1",
        kind: "Connector",
        metadata: {
          name: "harbor",
          namespace: "team-a",
          deletionTimestamp: "2026-01-01T00:00:00Z",
        } as { name: string },
        spec: { connectorClassName: "oci", address: "https://harbor.example.com" },
      });
      start();
      await until(() => reconciled.length > 0, "nobody has looked");
      expect([service(), conditions()]).to.deep.equal([undefined, []]);
    });
  });

  describe("with others", () => {
    it("agrees with another replica", async () => {
      put(withSecret);
      putLogin();
      start();
      start();
      await isReady();
      await isIdle();
      await tells("Normal Ready");
      expect(log.count("reconciliation failed, retrying")).to.equal(0); // that one was faster is no trouble
      const writes = requests(({ method }) => method !== "GET");
      clock.advance(6 * minute);
      await isIdle();
      expect(requests(({ method }) => method !== "GET")).to.equal(writes);
    });

    it("does not quarrel with one that does not see the registry", async () => {
      put();
      start();
      await isReady();
      start(async () => ({ liveness: failed("ConnectionFailed"), auth: loggedIn }));
      await shows("Ready", "False ConnectionFailed");
      await isIdle();
      const writes = statusWrites();
      await isIdle();
      expect(statusWrites()).to.equal(writes);
    });

    it("writes again where somebody has changed the Connector meanwhile", async () => {
      put();
      let times = 0;
      start(async (connector, secrets) => {
        times += 1;
        if (times === 1) put({ addressExtensions: [] });
        return ask(connector, secrets);
      });
      await until(() => property(connector()?.metadata, "generation") === 2, "it is not changed");
      await inTime(() => isReady());
      expect(property(property(connector(), "status"), "observedGeneration")).to.equal(2);
    });
  });

  describe("when the API server fails", () => {
    it("is ready when all is known, and not before", async () => {
      server.intercept = ({ path }) =>
        path.endsWith("/rolebindings") ? { status: 403, body: statusOf(403, "no") } : undefined;
      put();
      const controller = start();
      const asks = () => requests(({ path }) => path.endsWith("/rolebindings"));
      await until(() => asks() > 3, "it does not try again");
      expect(controller.ready()).to.equal(false);
      expect(conditions()).to.deep.equal([]);
      server.intercept = undefined;
      await until(() => controller.ready(), "it does not become ready");
      await isReady();
    });

    it("goes on where it was", async () => {
      put(withSecret);
      putLogin();
      const controller = start();
      await isReady();
      await isIdle();
      await server.goAway();
      const isTried = () => reconciled.at(-1)?.outcome === "error";
      await inTime(() => until(isTried, "nobody has looked"));
      server.remove("services", "c-harbor", "team-a");
      await server.comeBack();
      expect(controller.ready()).to.equal(true);
      await inTime(() => until(() => service() !== undefined, "the Service is still away"));
      await isReady();
    });

    it("ends, and ends a probe that is under way", async () => {
      put();
      const begun = Promise.withResolvers<void>();
      const controller = start(
        (_connector, _secrets, signal) =>
          new Promise((_resolve, reject) => {
            signal.addEventListener("abort", () => reject(signal.reason));
            begun.resolve();
          }),
      );
      await begun.promise;
      await controller.stop();
      expect(clock.waiting).to.equal(0);
      expect(log.count("a probe has failed")).to.equal(0);
    });
  });
});
