import { expect } from "chai";
import { createAuthority } from "../../src/certificate-authority.ts";
import type { Connector } from "../../src/connector/connector.ts";
import { parseConnector } from "../../src/connector/connector.ts";
import { type ReadUpstreamSecrets, Unavailable } from "../../src/connector/platform.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { createUpstreamSecretsReader } from "../../src/kube/read-upstream-secrets.ts";
import { makeCertificate } from "../support/certificates.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeApiServer, startFakeApiServer, statusOf } from "./fake-api-server.ts";

const secretsPath = "/api/v1/namespaces/team-a/secrets";

const connectorWith = (spec: object, uid = "u1"): Connector => {
  const connector = parseConnector({
    apiVersion: "connectors.alauda.io/v1alpha1",
    kind: "Connector",
    metadata: { name: "harbor", namespace: "team-a", uid },
    spec: { connectorClassName: "oci", address: "https://harbor.example.com", ...spec },
  });
  return connector.ok ? connector.value : expect.fail(connector.problems[0]?.path ?? "");
};
const withSecret = connectorWith({ auth: { name: "tokenAuth", secretRef: { name: "login" } } });

describe("createUpstreamSecretsReader()", () => {
  const resources = cleanup();
  let server: FakeApiServer;
  let read: ReadUpstreamSecrets;
  let logged: string[];
  let time = 0;
  let certificates: readonly string[];

  before(async () => {
    const authorities = await Promise.all(
      ["one", "two"].map((name) => createAuthority(name, new Date())),
    );
    certificates = authorities.map(({ certificate }) => certificate.trim());
  });
  beforeEach(async () => {
    server = resources.add(await startFakeApiServer());
    logged = [];
    read = createUpstreamSecretsReader({
      client: createApiClient({ access: server.access }),
      installNamespace: "connectors-system",
      now: () => time,
      log: (_level, _message, { reference } = {}) => logged.push(reference ?? ""),
    });
    putLogin("first");
  });
  afterEach(resources.stop);

  const base64 = (values: Record<string, string>): Record<string, string> =>
    Object.fromEntries(
      Object.entries(values).map(([key, value]) => [key, Buffer.from(value).toString("base64")]),
    );
  const putLogin = (password: string): void =>
    server.put("secrets", {
      metadata: { name: "login", namespace: "team-a" },
      type: "kubernetes.io/basic-auth",
      data: base64({ username: "robot", password }),
    });
  const passwordOf = async (fresh = false, connector = withSecret): Promise<unknown> => {
    const answer = await read(connector, { fresh });
    return answer.ok ? answer.value.credential?.password : expect.fail(answer.reason);
  };
  const reasonOf = async (connector = withSecret): Promise<string> => {
    const answer = await read(connector);
    return answer.ok ? expect.fail("it was read") : answer.reason;
  };
  const reads = (): number =>
    server.requests.filter(({ path }) => path === `${secretsPath}/login`).length;

  it("reads a credential once in a while", async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => passwordOf()));
    expect(new Set(answers)).to.deep.equal(new Set(["first"]));
    time += 29_999;
    await passwordOf();
    expect(reads()).to.equal(1);
    time += 1;
    putLogin("second");
    expect(await passwordOf()).to.equal("second");
  });

  it("reads it again at once where the registry has refused it", async () => {
    await passwordOf();
    putLogin("second");
    expect(await passwordOf()).to.equal("first");
    expect(await passwordOf(true)).to.equal("second");
    expect(await passwordOf()).to.equal("second");
  });

  it("reads of a docker configuration the entry for the connector's address, also after that has changed", async () => {
    const auths = {
      "harbor.example.com": { username: "robot", password: "of harbor" },
      "ghcr.io": { username: "robot", identitytoken: "of ghcr" },
    };
    server.put("secrets", {
      metadata: { name: "login", namespace: "team-a" },
      type: "kubernetes.io/dockerconfigjson",
      data: base64({ ".dockerconfigjson": JSON.stringify({ auths }) }),
    });
    const auth = { name: "tokenAuth", secretRef: { name: "login" } };
    expect(await passwordOf()).to.equal("of harbor");
    const moved = connectorWith({ auth, address: "https://ghcr.io" });
    expect(await passwordOf(false, moved)).to.equal("of ghcr");
    const atExtension = { ...moved, uid: "u1 at", mainAddress: withSecret.address };
    expect(await passwordOf(false, atExtension)).to.equal("of harbor");
    const foreign = connectorWith({ auth, address: "https://quay.io" });
    const reason = await reasonOf(foreign);
    expect(reason).to.contain("Secret team-a/login: .dockerconfigjson: found no entry");
    expect(reason).to.contain("quay.io").and.not.contain("ghcr");
  });

  it("reads no Secret for an anonymous connector but those for all", async () => {
    const answer = await read(connectorWith({}));
    expect(answer).to.deep.equal({
      ok: true,
      value: { credential: undefined, caCertificates: [] },
    });
    expect(server.requests.map(({ path }) => path)).to.deep.equal([
      "/api/v1/namespaces/connectors-system/configmaps/connectors-shared-cas",
      "/api/v1/namespaces/connectors-system/secrets",
    ]);
  });

  it("does not take an earlier connector's credential for that of a later one", async () => {
    await passwordOf();
    putLogin("second");
    const later = { ...withSecret, uid: "u2" };
    expect(await passwordOf(false, later)).to.equal("second");
  });

  it("names a Secret that is missing, and soon sees it when it comes", async () => {
    server.remove("secrets", "login", "team-a");
    expect(await reasonOf()).to.contain("there is no Secret team-a/login");
    putLogin("first");
    time += 2_000;
    expect(await passwordOf()).to.equal("first");
  });

  it("names the right that is missing", async () => {
    const message = 'secrets "login" is forbidden: User "proxy" cannot get resource "secrets"';
    server.intercept = ({ path }) =>
      path.endsWith("/login") ? { status: 403, body: statusOf(403, message) } : undefined;
    const reason = `Secret team-a/login can't be read: ${message}`;
    const wait = await reasonOf().catch((error: unknown) => error);
    expect(wait).to.be.instanceOf(Unavailable);
    expect(String(wait))
      .to.contain(reason)
      .and.contain("the controller gives the proxy this right");
    time += 29_999;
    expect(await reasonOf().catch((error: unknown) => error)).to.be.instanceOf(Unavailable);
    time += 2_000;
    expect(await reasonOf()).to.equal(reason);
  });

  it("reads a new connector's Secret as soon as the right to it is there", async () => {
    server.intercept = ({ path }) =>
      path.endsWith("/login") ? { status: 403, body: statusOf(403, "forbidden") } : undefined;
    expect(await reasonOf().catch((error: unknown) => error)).to.be.instanceOf(Unavailable);
    server.intercept = undefined;
    time += 500;
    expect(await passwordOf()).to.equal("first");
    // A right that is taken away later is waited for, too; the password that was read serves no longer.
    server.intercept = ({ path }) =>
      path.endsWith("/login") ? { status: 403, body: statusOf(403, "forbidden") } : undefined;
    time += 30_000;
    expect(await reasonOf().catch((error: unknown) => error)).to.be.instanceOf(Unavailable);
    time += 32_000;
    expect(await reasonOf()).to.contain("can't be read");
  });

  it("says what is wrong with a Secret, and not what is in it", async () => {
    server.put("secrets", {
      metadata: { name: "login", namespace: "team-a" },
      type: "Opaque",
      data: base64({ username: "robot", password: "hunter2\n" }),
    });
    const reason = await reasonOf();
    expect(reason).to.contain("Secret team-a/login: type: found");
    expect(reason).to.contain("newline").and.not.contain("hunter2");
  });

  it("serves what it has read while the API server is away, for some minutes", async () => {
    await passwordOf();
    await server.goAway();
    time += 9 * 60_000;
    expect(await passwordOf()).to.equal("first");
    expect(await passwordOf(true).catch((e: unknown) => e)).to.be.instanceOf(Unavailable);
    time += 60_000;
    expect(await passwordOf().catch((e: unknown) => e)).to.be.instanceOf(Unavailable);
  });

  it("reads a client certificate, the renewed one after a while, and says what is wrong with its Secret", async () => {
    const params = [{ name: "clientCertSecret", value: "client" }];
    const connector = connectorWith({ params });
    expect(await reasonOf(connector)).to.equal(
      "there is no Secret team-a/client: create it, with tls.crt and tls.key, or remove clientCertSecret from spec.params",
    );
    const put = async (name: string): Promise<string> => {
      const { certificate, privateKey } = await makeCertificate({ name });
      server.put("secrets", {
        metadata: { name: "client", namespace: "team-a" },
        type: "kubernetes.io/tls",
        data: base64({ "tls.crt": certificate, "tls.key": privateKey }),
      });
      return privateKey;
    };
    const keyNow = async (): Promise<unknown> => {
      const answer = await read(connector);
      return answer.ok ? answer.value.clientCertificate?.privateKey : answer.reason;
    };
    const first = await put("first");
    time += 2_000;
    expect(await keyNow()).to.equal(first);
    const second = await put("second");
    expect(await keyNow()).to.equal(first);
    time += 30_000;
    expect(await keyNow()).to.equal(second);
    server.put("secrets", {
      metadata: { name: "client", namespace: "team-a" },
      type: "Opaque",
      data: base64({ "tls.crt": "x", "tls.key": second }),
    });
    time += 30_000;
    const reason = String(await keyNow());
    expect(reason).to.contain("Secret team-a/client: type: found").and.contain("tls.crt");
    expect(reason).to.not.contain(second.split("\n")[1]);
  });

  it("trusts the certificates of the connector's own Secret, and those that are for all", async () => {
    const [own = "", shared = ""] = certificates;
    server.put("secrets", {
      metadata: { name: "ca", namespace: "team-a" },
      data: base64({ "ca.crt": own }),
    });
    const metadata = {
      name: "all",
      namespace: "connectors-system",
      labels: { "connectors.cpaas.io/ca-cert": "true" },
    };
    server.put("secrets", {
      metadata,
      data: base64({ "tls.pem": `${shared}\n${own}` }),
    });
    server.put("secrets", {
      metadata: { name: "unlabelled", namespace: "connectors-system" },
      data: base64({ "ca.crt": shared }),
    });
    const answer = await read(connectorWith({ caCertSecretRef: { name: "ca" } }));
    expect(answer).to.deep.equal({
      ok: true,
      value: { credential: undefined, caCertificates: [own, shared] },
    });
  });

  it("takes those that are for all from the controller's ConfigMap, and lists no Secret then", async () => {
    const [bundled = "", labelled = ""] = certificates;
    server.put("configmaps", {
      metadata: { name: "connectors-shared-cas", namespace: "connectors-system" },
      data: { "ca.crt": `${bundled}\n` },
    });
    const metadata = {
      name: "all",
      namespace: "connectors-system",
      labels: { "connectors.cpaas.io/ca-cert": "true" },
    };
    server.put("secrets", { metadata, data: base64({ "ca.crt": labelled }) });
    const answer = await read(connectorWith({}));
    expect(answer.ok && answer.value.caCertificates).to.deep.equal([bundled]);
    expect(server.requests.map(({ path }) => path)).to.deep.equal([
      "/api/v1/namespaces/connectors-system/configmaps/connectors-shared-cas",
    ]);
  });

  for (const [what, configMaps, secrets] of [
    ["lists the Secrets where there is no ConfigMap yet", 404, undefined],
    ["lists the Secrets where it may not read the ConfigMap yet", 403, undefined],
    ["trusts none of them where it may read neither, and says so once", 404, 403],
  ] as const) {
    it(what, async () => {
      const [shared = ""] = certificates;
      const metadata = {
        name: "all",
        namespace: "connectors-system",
        labels: { "connectors.cpaas.io/ca-cert": "true" },
      };
      server.put("secrets", { metadata, data: base64({ "ca.crt": shared }) });
      server.intercept = ({ path }) => {
        const status = path.includes("/configmaps") ? configMaps : secrets;
        return status && { status, body: statusOf(status, "no") };
      };
      for (const laterMs of [0, 10_000]) {
        time += laterMs;
        const answer = await read(connectorWith({}));
        const expected = secrets === undefined ? [shared] : [];
        expect(answer.ok && answer.value.caCertificates).to.deep.equal(expected);
      }
      expect(logged).to.have.lengthOf(secrets === undefined ? 0 : 1);
    });
  }

  it("does without certificates that can't be read, and says so once", async () => {
    const connector = connectorWith({ caCertSecretRef: { name: "none" } });
    for (const later of [0, 10_000]) {
      time += later;
      const answer = await read(connector);
      expect(answer.ok && answer.value.caCertificates).to.deep.equal([]);
    }
    expect(logged).to.deep.equal(["Secret team-a/none"]);
  });
});
