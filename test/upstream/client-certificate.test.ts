import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { TLSSocket, TlsOptions } from "node:tls";
import { expect } from "chai";
import type { KeyPair } from "../../src/certificate-authority.ts";
import { parseClientCertificate } from "../../src/connector/credential.ts";
import { describeProblems } from "../../src/connector/problem.ts";
import { createProbe, type ProbeResult } from "../../src/upstream/probe.ts";
import { createUpstreams } from "../../src/upstream/upstream.ts";
import { clientOf, errorIn, type TestClient } from "../proxy/test-client.ts";
import { startTestProxy, type TestProxy, testConnector } from "../proxy/test-proxy.ts";
import { makeCertificate } from "../support/certificates.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addBlob } from "../support/fake-registry-content.ts";
import { noise } from "../support/oci-image.ts";
import { oddRegistry } from "../support/registries/odd-registries.ts";

const credential = { username: "alice", password: "secret-of-alice" };
const name = "127.0.0.1";

describe("a registry that wants a client certificate", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let root: KeyPair;
  let server: KeyPair;
  let alice: KeyPair;
  let bob: KeyPair;
  let stranger: KeyPair;

  before(async () => {
    root = await makeCertificate({ name: "root", isAuthority: true });
    server = await makeCertificate({ name, issuer: root });
    alice = await makeCertificate({ name: "alice", issuer: root });
    bob = await makeCertificate({ name: "bob", issuer: root });
    const other = await makeCertificate({ name: "other root", isAuthority: true });
    stranger = await makeCertificate({ name: "stranger", issuer: other });
  });
  afterEach(resources.stop);

  const wanting = (options: TlsOptions = {}): TlsOptions => ({
    key: server.privateKey,
    cert: server.certificate,
    ca: root.certificate,
    requestCert: true,
    ...options,
  });

  interface Reached {
    readonly registry: FakeRegistry;
    readonly proxy: TestProxy;
    readonly client: TestClient;
    /** Whose certificates the registry was shown, in order, each once. */
    readonly shown: () => readonly string[];
    /** Uses another client certificate from now on. */
    readonly renew: (certificate: KeyPair | undefined) => void;
  }

  async function reach(tls: TlsOptions = wanting()): Promise<Reached> {
    const registry = resources.add(await startFakeRegistry({ auth: "bearer", tls }));
    const shown: string[] = [];
    registry.on(
      "* *",
      ({ request, next }) => {
        const { subject } = (request.socket as TLSSocket).getPeerCertificate();
        const who = String(subject?.CN);
        if (!shown.includes(who)) shown.push(who);
        return next();
      },
      "before auth",
    );
    const proxy = resources.add(await startTestProxy());
    const renew = (pair: KeyPair | undefined): void => {
      const caCertificates = [root.certificate];
      const own = pair === undefined ? {} : { clientCertificate: pair };
      proxy.connect("harbor", registry.url, { credential, caCertificates, ...own });
    };
    renew(alice);
    return { registry, proxy, client: clientOf(proxy, "harbor"), shown: () => shown, renew };
  }

  for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
    it(`is shown the connector's in pulls, uploads and requests for tokens, by ${version}`, async () => {
      const { registry, client, shown } = await reach(wanting({ maxVersion: version }));
      const blob = noise("blob", 300_000);
      const digest = addBlob(registry.repository("app"), blob);
      const pulled = await client("GET", `app/blobs/${digest}`);
      expect(pulled.body.equals(blob)).to.equal(true);
      const begun = await client("POST", "app/blobs/uploads/");
      const uploaded = await client("PATCH", begun.headers.location ?? "", { body: blob });
      expect(uploaded.status).to.equal(202);
      expect(shown()).to.deep.equal(["alice"]);
      const kinds = new Set(registry.requests.map(({ target }) => target.kind));
      expect([...kinds]).to.include.members(["ping", "token", "blob", "upload"]);
    });
  }

  it(oddRegistry("client-certificate"), async () => {
    const { client, shown, renew } = await reach();
    expect((await client("GET", "app/tags/list")).status).to.equal(404);
    renew(bob);
    expect((await client("GET", "app/tags/list")).status).to.equal(404);
    expect(shown()).to.deep.equal(["alice", "bob"]);
    renew(undefined);
    const refused = await client("GET", "app/tags/list");
    expect(refused.status).to.equal(503);
    expect(errorIn(refused).detail).to.contain("clientCertSecret");
  });

  it("may refuse it, and nobody sees the key", async () => {
    const { proxy, client, renew } = await reach();
    renew(stranger);
    const refused = await client("GET", "app/tags/list");
    expect(refused.status).to.equal(503);
    const outputs = `${proxy.log()}${refused.body}`;
    for (const line of stranger.privateKey.split("\n").filter((text) => text.length > 20)) {
      expect(outputs).to.not.contain(line);
    }
  });

  for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
    it(`says that it has expired, and takes the next one at once, by ${version}`, async () => {
      const expiredAt = new Date(Date.now() - 60_000);
      const expired = await makeCertificate({ name: "alice", issuer: root, expiredAt });
      const { proxy, client, renew } = await reach(wanting({ maxVersion: version }));
      renew(expired);
      for (let time = 0; time < 2; time += 1) {
        const refused = await client("GET", "app/tags/list");
        expect(refused.status).to.equal(503);
        expect(errorIn(refused).message).to.contain("the client certificate has expired");
        expect(errorIn(refused).detail).to.contain("clientCertSecret");
      }
      const secrets = proxy.surroundings.secrets.get("harbor");
      if (secrets === undefined) throw new Error("the connector has no Secrets");
      secrets.renewed = { ...secrets.current, clientCertificate: alice }; // what the caches don't know yet
      expect((await client("GET", "app/tags/list")).status).to.equal(404);
    });
  }

  it("is probed with it", async () => {
    const { registry } = await reach();
    const upstreams = createUpstreams(60_000);
    resources.defer(() => upstreams.destroy());
    const probe = (clientCertificate?: KeyPair): Promise<ProbeResult> =>
      createProbe(upstreams)(
        testConnector("harbor", registry.url),
        { credential, caCertificates: [root.certificate], clientCertificate },
        new AbortController().signal,
      );
    expect((await probe(alice)).auth.reason).to.equal("Authenticated");
    expect((await probe()).liveness.reason).to.equal("CertificateInvalid");
    const expiredAt = new Date(Date.now() - 60_000);
    const expired = await makeCertificate({ name: "alice", issuer: root, expiredAt });
    const { liveness } = await probe(expired);
    expect(liveness.reason).to.equal("CertificateInvalid");
    expect(liveness.message).to.contain("the client certificate has expired");
  });

  it("is the only one that is shown it: a storage host that wants one sees none", async () => {
    const { registry, proxy } = await reach();
    const seen: string[] = [];
    const leaf = await makeCertificate({ name: "localhost", issuer: root });
    const storage = createServer(
      {
        key: leaf.privateKey,
        cert: leaf.certificate,
        requestCert: true,
        rejectUnauthorized: false,
      },
      (request, response) => {
        seen.push(String((request.socket as TLSSocket).getPeerCertificate().subject?.CN));
        response.end("blob");
      },
    );
    await new Promise<void>((resolve) => storage.listen(0, "127.0.0.1", resolve));
    resources.defer(() => {
      storage.closeAllConnections();
      storage.close();
    });
    const { port } = storage.address() as AddressInfo;
    registry.on("GET blob", ({ send }) => send(307, { Location: `https://localhost:${port}/b` }));
    proxy.connect("harbor", registry.url, {
      credential,
      caCertificates: [root.certificate],
      clientCertificate: alice,
      params: [{ name: "allowedRedirectHosts", value: "localhost" }],
    });
    const digest = addBlob(registry.repository("app"), Buffer.from("blob"));
    const pulled = await clientOf(proxy, "harbor")("GET", `app/blobs/${digest}`);
    expect(pulled.body.toString()).to.equal("blob");
    await eventually(
      () => seen.length > 0,
      () => "the storage was not asked",
    );
    expect(seen).to.deep.equal(["undefined"]);
  });

  describe("has it from a Secret", () => {
    const secretOf = (values: Readonly<Record<string, string>>, type = "kubernetes.io/tls") => ({
      type,
      stringData: values,
    });
    const problemsOf = (secret: unknown): string => {
      const parsed = parseClientCertificate(secret);
      return parsed.ok ? "" : describeProblems(parsed.problems);
    };

    it("with tls.crt and tls.key, in plain text and in base64, with a chain", () => {
      const chain = `${alice.certificate}${root.certificate}`;
      const values = { "tls.crt": chain, "tls.key": alice.privateKey };
      const expected = {
        certificate: chain.trim().replaceAll("\n\n", "\n"),
        privateKey: alice.privateKey,
      };
      expect(parseClientCertificate(secretOf(values))).to.deep.equal({ ok: true, value: expected });
      const base64 = Object.fromEntries(
        Object.entries(values).map(([key, text]) => [key, Buffer.from(text).toString("base64")]),
      );
      const encoded = { type: "kubernetes.io/tls", data: base64 };
      expect(parseClientCertificate(encoded)).to.deep.equal({ ok: true, value: expected });
    });

    it("of which everything wrong is said, and no key is shown", async () => {
      const weak = await makeCertificate({ name: "weak", rsaBits: 1024 });
      const wrong: readonly (readonly [unknown, RegExp])[] = [
        [secretOf({ "tls.crt": alice.certificate, "tls.key": alice.privateKey }, "Opaque"), /type/],
        [secretOf({ "tls.key": alice.privateKey }), /tls\.crt: found no certificate/],
        [secretOf({ "tls.crt": alice.certificate }), /tls\.key: found no key/],
        [secretOf({ "tls.crt": alice.certificate, "tls.key": bob.privateKey }), /another key/],
        [secretOf({ "tls.crt": "x", "tls.key": alice.privateKey }), /no certificate/],
        [
          secretOf({
            "tls.crt": alice.certificate.replace(/MII/, "AAA"),
            "tls.key": alice.privateKey,
          }),
          /can't be read/,
        ],
        [
          secretOf({ "tls.crt": alice.certificate, "tls.key": alice.privateKey.slice(0, 80) }),
          /a key that can't be read/,
        ],
        [
          secretOf({ "tls.crt": weak.certificate, "tls.key": weak.privateKey }),
          /TLS does not accept, wanted RSA with 2,048 bits/,
        ],
      ];
      for (const [secret, expected] of wrong) {
        const problems = problemsOf(secret);
        expect(problems).to.match(expected);
        expect(problems).to.not.match(/PRIVATE|MI[A-Z]/);
      }
    });
  });
});
