import { expect } from "chai";
import { isLoop } from "../../../src/proxy/relay/upstream-request.ts";
import { createProbe } from "../../../src/upstream/probe.ts";
import { createUpstreams } from "../../../src/upstream/upstream.ts";
import { userAgent, version } from "../../../src/version.ts";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob, addManifest } from "../../support/fake-registry-content.ts";
import { storeBlobsIn } from "../../support/hostile-downloads.ts";
import { noise, sha256 } from "../../support/oci-image.ts";
import { oddRegistry } from "../../support/registries/odd-registries.ts";
import { clientOf } from "../test-client.ts";
import { startTestProxy } from "../test-proxy.ts";

const credential = { username: "alice", password: "secret-of-alice" };
const type = "application/vnd.oci.image.manifest.v1+json";
const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: type }));

describe("a firewall that answers 403 to a request without User-Agent", function () {
  this.timeout(20_000);
  const resources = cleanup();
  afterEach(resources.stop);

  const startBehindFirewall = async (auth: "bearer" | "none"): Promise<FakeRegistry> => {
    const registry = resources.add(await startFakeRegistry({ auth }));
    registry.on(
      "* *",
      ({ request, send, next }) =>
        request.headers["user-agent"] === undefined
          ? send(403, { "Content-Type": "text/html" }, Buffer.from("<html>403</html>"))
          : next(),
      "before auth",
    );
    return registry;
  };
  const agentsOf = ({ requests }: FakeRegistry): readonly (string | undefined)[] =>
    requests.map(({ headers }) => headers["user-agent"]);

  it(oddRegistry("no-user-agent"), async () => {
    const registry = await startBehindFirewall("bearer");
    const storage = await startBehindFirewall("none");
    const proxy = resources.add(await startTestProxy());
    const params = [{ name: "immutableTags", value: "v*" }];
    proxy.connect("harbor", registry.url, { credential, params });
    const client = clientOf(proxy, "harbor");
    const blob = noise("blob", 20_000);
    const digest = addBlob(registry.repository("app"), blob);
    const tagged = { headers: { "content-type": type }, body: manifest };

    expect((await client("PUT", "app/manifests/v1", tagged)).status).to.equal(201);
    expect((await client("GET", "app/manifests/v1")).status).to.equal(200);
    expect((await client("GET", `app/blobs/${digest}`)).status).to.equal(200);
    const pushed = noise("pushed", 5000);
    const begun = await client("POST", "app/blobs/uploads/");
    const patched = await client("PATCH", begun.headers.location ?? "", { body: pushed });
    expect(patched.status).to.equal(202);
    const end = `${patched.headers.location}&digest=${sha256(pushed)}`;
    expect((await client("PUT", end)).status).to.equal(201);
    expect((await client("DELETE", `app/manifests/${sha256(manifest)}`)).status).to.equal(202);
    resources.defer(storeBlobsIn(storage, registry));
    expect((await client("GET", `app/blobs/${digest}`)).body.equals(blob)).to.equal(true);

    const kinds = registry.requests.map(({ method, target }) => `${method} ${target.kind}`);
    expect(kinds).to.include.members(["GET ping", "GET token", "HEAD manifest", "PATCH upload"]);
    for (const agent of [...agentsOf(registry), ...agentsOf(storage)]) {
      expect(agent).to.equal(`oci-connector/${version}`);
    }
  });

  it("lets the probe of the controller and the doctor pass", async () => {
    const registry = await startBehindFirewall("bearer");
    addManifest(registry.repository("app"), "1", { mediaType: type, bytes: manifest });
    const upstreams = createUpstreams(60_000);
    resources.defer(() => upstreams.destroy());
    const proxy = resources.add(await startTestProxy());
    const connector = proxy.connect("harbor", registry.url, { credential });
    const secrets = { credential, caCertificates: [] };
    const probed = await createProbe(upstreams)(
      { ...connector, probeRepository: "app" },
      secrets,
      new AbortController().signal,
    );
    expect(probed.auth.reason).to.equal("Authenticated");
    expect(registry.requests).to.have.lengthOf(4);
    for (const agent of agentsOf(registry)) expect(agent).to.equal(userAgent);
  });
});

describe("isLoop()", () => {
  const loops = [
    `${userAgent} ${userAgent}`,
    "oci-connector oci-connector skopeo/1.9",
    "oci-connector/0.1.0 oci-connector skopeo/1.9",
    "oci-connector oci-connector/2.0.0-rc.1+build skopeo/1.9",
    "oci-connector/1.0 cache/2 oci-connector/0.9 skopeo/1.9",
  ];
  for (const agent of loops) {
    it(`finds one by ${agent}`, () => {
      expect(isLoop({ "user-agent": agent })).to.equal(true);
    });
  }
  const straight = [
    undefined,
    "",
    "skopeo/1.9",
    userAgent,
    "oci-connector skopeo/1.9",
    `${userAgent} skopeo/1.9 (oci-connector-like)`,
    `${userAgent} my-oci-connector/1.0 oci-connectors/2`,
  ];
  for (const agent of straight) {
    it(`finds none by ${agent}`, () => {
      expect(isLoop(agent === undefined ? {} : { "user-agent": agent })).to.equal(false);
    });
  }
});
