import type { TlsOptions } from "node:tls";
import { expect } from "chai";
import type { KeyPair } from "../../src/certificate-authority.ts";
import { createProbe, type ProbeResult } from "../../src/upstream/probe.ts";
import { createUpstreams } from "../../src/upstream/upstream.ts";
import { clientOf, errorIn } from "../proxy/test-client.ts";
import { startTestProxy, testConnector } from "../proxy/test-proxy.ts";
import { makeCertificate } from "../support/certificates.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addBlob } from "../support/fake-registry-content.ts";
import { noise } from "../support/oci-image.ts";
import { oddRegistry } from "../support/registries/odd-registries.ts";

const credential = { username: "alice", password: "secret-of-alice" };
const name = "127.0.0.1";

describe("the certificate of a registry", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let root: KeyPair;
  let issuing: KeyPair;
  let leaf: KeyPair;
  let expired: KeyPair;
  let stranger: KeyPair;
  let otherLeaf: KeyPair;
  let signedByOtherLeaf: KeyPair;

  before(async () => {
    root = await makeCertificate({ name: "root", isAuthority: true });
    issuing = await makeCertificate({ name: "issuing", isAuthority: true, issuer: root });
    leaf = await makeCertificate({ name, issuer: issuing });
    expired = await makeCertificate({ name, issuer: issuing, expiredAt: new Date(Date.now() - 1) });
    stranger = await makeCertificate({ name: "stranger", isAuthority: true });
    otherLeaf = await makeCertificate({ name: "other.test", issuer: issuing });
    signedByOtherLeaf = await makeCertificate({ name, issuer: otherLeaf });
  });
  afterEach(resources.stop);

  const startRegistry = async (tls: TlsOptions): Promise<FakeRegistry> =>
    resources.add(await startFakeRegistry({ auth: "bearer", tls }));
  const serving = ({ privateKey, certificate }: KeyPair, ...sent: readonly KeyPair[]) => ({
    key: privateKey,
    cert: [certificate, ...sent.map((other) => other.certificate)].join(""),
  });
  const probe = async (
    registry: FakeRegistry,
    caCertificates: readonly string[],
  ): Promise<ProbeResult> => {
    const upstreams = createUpstreams(60_000);
    resources.defer(() => upstreams.destroy());
    const { signal } = new AbortController();
    const connector = testConnector("harbor", registry.url);
    return createProbe(upstreams)(connector, { credential, caCertificates }, signal);
  };
  /** Pulls and gets a token by the client of our own, and uploads by node:http. */
  const useThroughProxy = async (
    registry: FakeRegistry,
    caCertificates: readonly string[],
  ): Promise<{ readonly statuses: readonly number[]; readonly message: string }> => {
    const proxy = resources.add(await startTestProxy());
    proxy.connect("harbor", registry.url, { credential, caCertificates });
    const client = clientOf(proxy, "harbor");
    const digest = addBlob(registry.repository("app"), noise("blob", 1000));
    const pulled = await client("GET", `app/blobs/${digest}`);
    const begun = await client("POST", "app/blobs/uploads/");
    const { location = "/v2/" } = begun.headers;
    const uploaded = await client("PATCH", location, { body: noise("pushed", 1000) });
    const message = pulled.status < 400 ? "" : errorIn(pulled).message;
    return { statuses: [pulled, begun, uploaded].map(({ status }) => status), message };
  };

  const trusted: readonly (readonly [string, () => [TlsOptions, readonly KeyPair[]]])[] = [
    ["its root", () => [serving(leaf, issuing), [root]]],
    ["its issuing authority alone", () => [serving(leaf, issuing), [issuing]]],
    ["its issuing authority, which it does not send", () => [serving(leaf), [issuing]]],
    ["itself, signed by an authority", () => [serving(leaf, issuing), [leaf]]],
    ["itself, sent alone", () => [serving(leaf), [leaf]]],
    ["a stranger and its issuing authority", () => [serving(leaf), [stranger, issuing]]],
  ];
  for (const [bundle, make] of trusted) {
    it(`is trusted by a CA Secret with ${bundle}`, async () => {
      const [tls, authorities] = make();
      const registry = await startRegistry(tls);
      const caCertificates = authorities.map(({ certificate }) => certificate);
      const { statuses } = await useThroughProxy(registry, caCertificates);
      expect(statuses).to.deep.equal([200, 202, 202]);
      expect((await probe(registry, caCertificates)).auth.reason).to.equal("Authenticated");
    });
  }

  it(oddRegistry("partial-chain"), async () => {
    const registry = await startRegistry(serving(leaf));
    expect((await useThroughProxy(registry, [issuing.certificate])).statuses[0]).to.equal(200);
    expect((await useThroughProxy(registry, [leaf.certificate])).statuses[0]).to.equal(200);
    expect((await useThroughProxy(registry, [stranger.certificate])).statuses[0]).to.equal(503);
  });

  const refused: readonly (readonly [string, () => [TlsOptions, readonly KeyPair[]], RegExp])[] = [
    ["the root of a stranger", () => [serving(leaf, issuing), [stranger]], /not trusted/],
    ["its issuing authority, once it has expired", () => [serving(expired), [issuing]], /expired/],
    ["itself, once it has expired", () => [serving(expired), [expired]], /expired/],
    [
      "another server's certificate, by whose key it is signed",
      () => [serving(signedByOtherLeaf, otherLeaf), [otherLeaf]],
      /may sign none/,
    ],
    ["nothing", () => [serving(leaf, issuing), []], /not trusted/],
  ];
  for (const [bundle, make, sentence] of refused) {
    it(`is refused by a CA Secret with ${bundle}`, async () => {
      const [tls, authorities] = make();
      const registry = await startRegistry(tls);
      const caCertificates = authorities.map(({ certificate }) => certificate);
      const { statuses, message } = await useThroughProxy(registry, caCertificates);
      expect(statuses[0]).to.equal(503);
      expect(message, message).to.match(sentence);
      expect(message).to.not.match(/[A-Z]{3,}_[A-Z]|UNSPECIFIED/);
      expect(registry.requests).to.deep.equal([]);
      const { liveness } = await probe(registry, caCertificates);
      expect(liveness.reason).to.equal("CertificateInvalid");
      expect(liveness.message).to.match(sentence);
    });
  }

  const unsupported: readonly (readonly [
    string,
    () => TlsOptions | Promise<TlsOptions>,
    RegExp,
    string,
  ])[] = [
    [
      "with an RSA key of 1,024 bits",
      async () => ({
        ...serving(await makeCertificate({ name, issuer: root, rsaBits: 1024 })),
        ciphers: "DEFAULT:@SECLEVEL=0",
      }),
      /the key of its certificate is too weak: wanted is RSA with 2,048 bits/,
      "another certificate",
    ],
    [
      "of a registry that wants a client certificate",
      () => ({ ...serving(leaf, issuing), requestCert: true, ca: [root.certificate] }),
      /it wants a client certificate/,
      "clientCertSecret",
    ],
    [
      "of a registry that wants a client certificate by TLS 1.2",
      () => ({
        ...serving(leaf, issuing),
        requestCert: true,
        ca: [root.certificate],
        maxVersion: "TLSv1.2",
      }),
      /it wants a client certificate, or has no cipher/,
      "clientCertSecret",
    ],
    [
      "of a registry that speaks TLS 1.1 alone",
      () => ({
        ...serving(leaf, issuing),
        minVersion: "TLSv1",
        maxVersion: "TLSv1.1",
        ciphers: "DEFAULT:@SECLEVEL=0",
      }),
      /it speaks neither TLS 1\.2 nor TLS 1\.3/,
      "older versions are not supported",
    ],
    [
      "of a registry that speaks HTTP/2 alone",
      () => ({ ...serving(leaf, issuing), ALPNProtocols: ["h2"] }),
      /it does not speak HTTP\/1\.1/,
      "HTTP/2 alone is not supported",
    ],
  ];
  it(oddRegistry("unsupported-tls"), () => {
    expect(unsupported).to.have.lengthOf(5); // each has a test of its own
  });

  for (const [which, make, sentence, advice] of unsupported) {
    it(`${which} is refused in words: by a pull, an upload and the probe`, async () => {
      const registry = await startRegistry(await make());
      registry.auth.mode = "none";
      const proxy = resources.add(await startTestProxy());
      const caCertificates = [root.certificate];
      proxy.connect("harbor", registry.url, { credential, caCertificates });
      const client = clientOf(proxy, "harbor");
      const path = `app/blobs/uploads/?digest=sha256:${"0".repeat(64)}`;
      for (const answer of [
        await client("GET", "app/tags/list"),
        await client("POST", path, { body: noise("x", 10) }),
      ]) {
        expect(answer.status).to.equal(503);
        const { message, detail } = errorIn(answer);
        expect(message, message).to.match(sentence);
        expect(detail).to.contain(advice);
        expect(message).to.not.match(/[A-Z]{3,}_[A-Z]|UNSPECIFIED/);
      }
      const { liveness } = await probe(registry, caCertificates);
      expect(liveness.reason).to.equal("CertificateInvalid");
      expect(liveness.message).to.match(sentence);
      expect(liveness.message).to.contain(advice);
      expect(registry.requests).to.deep.equal([]);
    });
  }
});
