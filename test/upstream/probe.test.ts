import { expect } from "chai";
import type { Credential } from "../../src/connector/credential.ts";
import { createProbe, type Probe, type ProbeResult } from "../../src/upstream/probe.ts";
import { createUpstreams } from "../../src/upstream/upstream.ts";
import { testConnector } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { neverAnswer } from "../support/hostile-answers.ts";
import { tokenEndpoint, useRealm } from "../support/hostile-auth.ts";

const alice: Credential = { username: "alice", password: "secret-of-alice" };
const wrong: Credential = { username: "alice", password: "wrong-password" };

describe("the probe of a registry", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let probe: Probe;
  beforeEach(() => {
    const upstreams = createUpstreams(60_000);
    resources.defer(() => upstreams.destroy());
    probe = createProbe(upstreams);
  });
  afterEach(resources.stop);

  const registryWith = async (
    options: Parameters<typeof startFakeRegistry>[0],
  ): Promise<FakeRegistry> => resources.add(await startFakeRegistry(options));
  const look = (
    address: string,
    credential: Credential | undefined,
    caCertificates: readonly string[] = [],
  ): Promise<ProbeResult> =>
    probe(
      testConnector("harbor", address),
      { credential, caCertificates },
      new AbortController().signal,
    );
  const reasonsOf = ({ liveness, auth }: ProbeResult): readonly string[] => [
    liveness.reason,
    auth.reason,
  ];

  for (const auth of ["basic", "bearer"] as const) {
    it(`logs in where a registry wants ${auth}`, async () => {
      const registry = await registryWith({ auth });
      expect(reasonsOf(await look(registry.url, alice))).to.deep.equal([
        "Answers",
        "Authenticated",
      ]);
    });

    it(`says that a registry that wants ${auth} refuses a password, and never shows it`, async () => {
      const registry = await registryWith({ auth });
      const result = await look(registry.url, wrong);
      expect(reasonsOf(result)).to.deep.equal(["Answers", "AuthenticationFailed"]);
      expect(result.auth.message).to.contain("Secret");
      expect(JSON.stringify(result)).to.not.contain("wrong-password");
    });
  }

  it("says that a registry that wants a password needs a Secret", async () => {
    const registry = await registryWith({ auth: "basic" });
    const result = await look(registry.url, undefined);
    expect(result.auth.reason).to.equal("AuthenticationFailed");
    expect(result.auth.message).to.contain("spec.auth.secretRef");
  });

  it("asks for the repository that the connector names", async () => {
    const registry = await registryWith({ auth: "bearer" });
    const params = [{ name: "repository", value: "app/web" }];
    const connector = testConnector("harbor", registry.url, [], { params });
    const ask = async (credential: Credential | undefined): Promise<string> => {
      const secrets = { credential, caCertificates: [] };
      return (await probe(connector, secrets, new AbortController().signal)).auth.reason;
    };
    expect(await ask(alice)).to.equal("Authenticated");
    expect(await ask(undefined)).to.equal("AccessDenied");
  });

  it("logs in once, and asks the token server no second time", async () => {
    const registry = await registryWith({ auth: "bearer" });
    await look(registry.url, wrong);
    expect(registry.requests.filter(({ target }) => target.kind === "token")).to.have.length(1);
  });

  it("can't tell where nobody has to log in", async () => {
    const registry = await registryWith({ auth: "none" });
    expect(reasonsOf(await look(registry.url, alice))).to.deep.equal(["Answers", "NonAuthProbe"]);
  });

  it("says that nothing listens", async () => {
    const registry = await registryWith({});
    await registry.stop();
    const result = await look(registry.url, alice);
    expect(reasonsOf(result)).to.deep.equal(["ConnectionFailed", "ConnectionFailed"]);
    expect(result.liveness.message).to.contain("nothing listens there");
  });

  it("trusts a certificate by the connector's own authority alone", async () => {
    const registry = await registryWith({ auth: "basic", tls: true });
    const untrusted = await look(registry.url, alice);
    expect(untrusted.liveness.reason).to.equal("CertificateInvalid");
    expect(untrusted.liveness.message).to.contain("spec.caCertSecretRef");
    const trusted = await look(registry.url, alice, [registry.ca ?? ""]);
    expect(trusted.auth.reason).to.equal("Authenticated");
  });

  it("tells a web server from a registry", async () => {
    const registry = await registryWith({});
    registry.on("GET ping", ({ fail }) => fail(404, "NOT_FOUND"), "before auth");
    expect((await look(registry.url, alice)).liveness.reason).to.equal("NotARegistry");
  });

  it("sends no password to a token server of another domain, and says how to allow it", async () => {
    const registry = await registryWith({ auth: "bearer", hostname: "localhost" });
    const elsewhere = await registryWith({ hostname: "127.0.0.1" });
    useRealm(registry, `${elsewhere.url}/token`);
    const result = await look(registry.url, alice);
    expect(result.auth.reason).to.equal("AuthRealmRejected");
    expect(result.auth.message).to.contain("allowedRealmHosts");
    expect(elsewhere.requests).to.deep.equal([]);
  });

  it("tells a token server that fails from one that refuses", async () => {
    const registry = await registryWith({ auth: "bearer" });
    tokenEndpoint.fails(registry, 500);
    expect((await look(registry.url, alice)).auth.reason).to.equal("ConnectionFailed");
  });

  it("ends when it is told to", async () => {
    const registry = await registryWith({});
    neverAnswer(registry, "GET ping");
    const abort = new AbortController();
    const connector = testConnector("harbor", registry.url);
    const looking = probe(connector, { credential: alice, caCertificates: [] }, abort.signal);
    abort.abort(new Error("told to end"));
    expect(await looking.catch(String)).to.equal("Error: told to end");
  });
});
