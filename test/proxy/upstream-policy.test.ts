import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import type { RequestReport } from "../../src/proxy/request-report.ts";
import type { ResolveHost } from "../../src/upstream/address-guard.ts";
import { createProbe } from "../../src/upstream/probe.ts";
import { createUpstreams } from "../../src/upstream/upstream.ts";
import type { UpstreamPolicy } from "../../src/upstream/upstream-policy.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { sha256 } from "../support/oci-image.ts";
import type { PlainResponse } from "../support/plain-request.ts";
import { clientOf, errorIn, type TestClient } from "./test-client.ts";
import { startTestProxy, type TestProxy } from "./test-proxy.ts";

/**
 * A proxy in a cluster. The Pod's own address is 127.0.0.2 here, and 127.0.0.1 that of a neighbour with a registry, since
 * tests speak to loopback alone.
 */
describe("a connector in a cluster", function () {
  this.timeout(30_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let ownPort: FakeRegistry;
  let proxy: TestProxy;
  /** The address that the name `rebound.test` has at each lookup, in turn. */
  let rebound: readonly string[];
  let lookups: number;
  /** What the audit log has of the requests. */
  const decisions: string[] = [];
  const digest = sha256(Buffer.from("blob"));

  const policy: UpstreamPolicy = {
    rules: { hosts: [], networks: [], neverNetworks: ["127.0.0.3/32"] },
    nearAddresses: () => ({ pod: ["127.0.0.2", "::1"], node: [], apiServer: [] }),
  };
  const lookup: ResolveHost = (hostname, _options, callback) => {
    const address = hostname === "rebound.test" ? rebound[lookups++ % rebound.length] : hostname;
    callback(null, [{ address: address ?? "", family: 4 }]);
  };
  const portOf = ({ url }: FakeRegistry): string => new URL(url).port;

  before(async () => {
    registry = resources.add(await startFakeRegistry());
    ownPort = resources.add(await startFakeRegistry({ address: "0.0.0.0" }));
    const observer = {
      requestStarted: () => undefined,
      requestEnded: ({ decision }: RequestReport) => decisions.push(decision),
      tokenNeeded: () => undefined,
    };
    proxy = resources.add(await startTestProxy({ lookup, upstreamPolicy: policy, observer }));
  });
  beforeEach(() => {
    lookups = 0;
    decisions.length = 0;
    rebound = ["127.0.0.1", "127.0.0.2"];
    ownPort.requests.length = 0;
  });
  after(resources.stop);

  /** Every way in which a request goes to a registry: by the read client and http-proxy-3. */
  const requests: readonly (readonly [string, string, string?])[] = [
    ["GET", `app/blobs/${digest}`],
    ["HEAD", "app/manifests/1"],
    ["GET", "app/tags/list"],
    ["DELETE", "app/manifests/1"],
    ["PUT", "app/manifests/1", "{}"],
    ["POST", "app/blobs/uploads/"],
    ["POST", `app/blobs/uploads/?digest=${digest}`, "blob"],
  ];
  const sendAll = async (client: TestClient): Promise<readonly PlainResponse[]> => {
    const answers: PlainResponse[] = [];
    for (const [method, path, body] of requests) {
      answers.push(await client(method, path, body === undefined ? {} : { body }));
    }
    return answers;
  };

  it("leads to no address of the Pod by its own address", async () => {
    for (const host of ["127.0.0.2", "127.0.2", "2130706434", "0x7f.0.0.2", "[::ffff:7f00:2]"]) {
      const { origin } = new URL(`http://${host}:${portOf(ownPort)}`);
      proxy.connect("own", origin);
      for (const { status } of await sendAll(clientOf(proxy, "own"))) {
        expect(status).to.equal(503);
      }
    }
    expect(ownPort.requests).to.deep.equal([]);
    expect(new Set(decisions)).to.deep.equal(new Set(["refused"]));
  });

  it("leads to no address of the Pod by a name that is bound to another address after a check", async () => {
    proxy.connect("rebound", `http://rebound.test:${portOf(ownPort)}`);
    const hosts: (string | undefined)[] = [];
    const stop = ownPort.on("* *", ({ request, next }) => {
      hosts.push(request.socket.localAddress);
      return next();
    });
    for (let round = 0; round < 4; round += 1) {
      rebound = round % 2 === 0 ? ["127.0.0.1", "127.0.0.2"] : ["127.0.0.2", "127.0.0.1"];
      await sendAll(clientOf(proxy, "rebound"));
      await sleep(1);
    }
    stop();
    expect(lookups).to.be.greaterThan(0);
    expect(new Set(hosts)).to.deep.equal(new Set(["127.0.0.1"]));
  });

  it("leads to no address of the Pod by a redirect that its params allow", async () => {
    const spellings = ["127.0.0.2", "127.2", "0177.0.0.2", "2130706434", "[::ffff:127.0.0.2]"];
    for (const host of [...spellings, "rebound.test"]) {
      const target = new URL(`http://${host}:${portOf(ownPort)}/metrics`);
      rebound = ["127.0.0.2"];
      const isIpv6 = target.hostname.startsWith("[");
      proxy.connect("redirecting", registry.url, {
        params: isIpv6 ? [] : [{ name: "allowedRedirectHosts", value: target.hostname }],
      });
      const stop = registry.on("* blob", ({ send }) => send(307, { Location: target.href }));
      const answer = await clientOf(proxy, "redirecting")("GET", `app/blobs/${digest}`);
      stop();
      expect(answer.status).to.equal(503);
    }
    expect(ownPort.requests).to.deep.equal([]);
    expect(new Set(decisions)).to.deep.equal(new Set(["allowed"])); // the registry itself was asked
  });

  it("leads to no token server of the Pod that its params allow", async () => {
    proxy.connect("realm", registry.url, {
      params: [{ name: "allowedRealmHosts", value: "127.0.0.2" }],
    });
    const realm = `http://127.0.0.2:${portOf(ownPort)}/token`;
    const stop = registry.on("* *", ({ send }) =>
      send(401, { "WWW-Authenticate": `Bearer realm="${realm}"` }),
    );
    const answer = await clientOf(proxy, "realm")("GET", "app/tags/list");
    stop();
    expect(answer.status).to.equal(503);
    expect(ownPort.requests).to.deep.equal([]);
  });

  it("answers alike where an internal port is closed, and where it is refused; the log has the cause", async () => {
    const free = await startFakeRegistry();
    const closedPort = portOf(free);
    await free.stop();
    const textAt = async (host: string): Promise<string> => {
      proxy.connect("scan", `http://${host}:${closedPort}`);
      const answer = await clientOf(proxy, "scan")("GET", "app/tags/list");
      expect(answer.status).to.equal(503);
      return JSON.stringify(errorIn(answer)).replaceAll(host, "HOST");
    };
    const closed = await textAt("127.0.0.1");
    expect(closed).to.contain("UPSTREAM_NETWORKS").and.not.contain("listens");
    expect(await textAt("127.0.0.2")).to.equal(closed);
    expect(await textAt("127.0.0.3")).to.equal(closed);
    expect(proxy.log())
      .to.contain("ECONNREFUSED")
      .and.contain("an address of this Pod")
      .and.contain("a network that the operator has closed");
  });

  it("says why where the operator has named the network", async () => {
    const named = resources.add(
      await startTestProxy({
        upstreamPolicy: { ...policy, rules: { ...policy.rules, networks: ["127.0.0.0/8"] } },
      }),
    );
    const free = await startFakeRegistry();
    named.connect("scan", free.url);
    await free.stop();
    const answer = await clientOf(named, "scan")("GET", "app/tags/list");
    expect(errorIn(answer).message).to.contain("nothing listens there");
  });

  it("says in its status that it is closed, and nothing of what is in an unnamed network", async () => {
    const upstreams = createUpstreams(10_000, { policy });
    resources.defer(() => upstreams.destroy());
    const causes: string[] = [];
    const probe = createProbe(upstreams, (_connector, cause) => causes.push(String(cause)));
    const findingAt = async (url: string) => {
      const connector = proxy.connect("probed", url);
      const secrets = { credential: undefined, caCertificates: [] };
      return (await probe(connector, secrets, new AbortController().signal)).liveness;
    };
    const own = await findingAt(`http://127.0.0.2:${portOf(ownPort)}`);
    expect(own.reason).to.equal("AddressRefused");
    expect(own.message).to.contain("an address of this Pod").and.contain("UPSTREAM_NETWORKS");
    const free = await startFakeRegistry();
    await free.stop();
    const closed = await findingAt(free.url);
    expect(closed.reason).to.equal("ConnectionFailed");
    expect(closed.message).to.not.contain("listens");
    expect(causes.join()).to.contain("ECONNREFUSED");
    expect((await findingAt(registry.url)).ok).to.equal(true);
  });
});
