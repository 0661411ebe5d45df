import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { createAuthority } from "../../src/certificate-authority.ts";
import type { UpstreamSecrets } from "../../src/connector/platform.ts";
import { apiUrl, fetchHead } from "../../src/upstream/fetch-head.ts";
import { createUpstreams, type Upstream, type Upstreams } from "../../src/upstream/upstream.ts";
import { clientOf } from "../proxy/test-client.ts";
import { startTestProxy, testConnector } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { addBlob } from "../support/fake-registry-content.ts";
import { noise } from "../support/oci-image.ts";

const none: UpstreamSecrets = { credential: undefined, caCertificates: [] };

/** Sends a request, whose connection is kept. */
const request = (upstream: Upstream, path: string): Promise<unknown> =>
  fetchHead(upstream, apiUrl(upstream, path), {
    authorization: undefined,
    signal: AbortSignal.timeout(10_000),
  });

describe("the upstreams of connectors", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let upstreams: Upstreams;
  beforeEach(() => {
    upstreams = createUpstreams(60_000);
    resources.defer(() => upstreams.destroy());
  });
  afterEach(resources.stop);

  const harbor = testConnector("harbor", "https://harbor.test");
  const withPassword = (password: string): UpstreamSecrets => ({
    ...none,
    credential: { username: "alice", password },
  });

  it("keep their connections while nothing about them changes", () => {
    const first = upstreams.of(harbor, none);
    expect(upstreams.of(harbor, none)).to.equal(first);
    const reread = upstreams.of({ ...harbor }, { ...none });
    expect(reread.send).to.equal(first.send);
    expect(reread.tokenKey).to.equal(first.tokenKey);
  });

  it("keep their connections and not their tokens when the password changes", () => {
    const first = upstreams.of(harbor, withPassword("one"));
    const second = upstreams.of(harbor, withPassword("two"));
    expect(second.send).to.equal(first.send);
    expect(second.tokenKey).to.not.equal(first.tokenKey);
    expect(second.secrets.credential?.password).to.equal("two");
  });

  it("keep the connections of those that were used last, where a namespace has very many", async () => {
    const shortLived = createUpstreams(10);
    resources.defer(() => shortLived.destroy());
    const registry = resources.add(await startFakeRegistry());
    const closed: string[] = [];
    registry.on("* *", ({ request, next }) => {
      request.socket.once("close", () => closed.push(request.url ?? ""));
      return next();
    });
    const local = testConnector("harbor", registry.url);
    const connectorOf = (index: number) => ({ ...local, uid: `uid-${index}` });
    const other = { ...local, uid: "of-others", namespace: "team-b" };
    const neighbour = shortLived.of(other, none);
    const [first, second] = [0, 1].map((index) => shortLived.of(connectorOf(index), none));
    for (const [index, upstream] of [first, second].entries()) {
      if (upstream === undefined) throw new Error("there is no upstream");
      await request(upstream, `${index}`);
    }
    for (let index = 2; index < 600; index += 1) {
      shortLived.of(connectorOf(index), none);
      shortLived.of(connectorOf(0), none);
    }
    await eventually(
      () => closed.length > 0,
      () => "the connections of the one that was used first are still open",
    );
    expect(closed).to.deep.equal(["/v2/1"]);
    expect(shortLived.of(connectorOf(0), none).send).to.equal(first?.send);
    expect(shortLived.of(connectorOf(1), none).send).to.not.equal(second?.send);
    expect(shortLived.of(other, none).send).to.equal(neighbour.send);
  });

  it("keep fewer where each has certificates of its own", async () => {
    const authority = await createAuthority("registry", new Date());
    const certificate = authority.certificate.trim();
    const connectorOf = (index: number) => ({ ...harbor, uid: `uid-${index}` });
    const trusting = (index: number): UpstreamSecrets => ({
      ...none,
      caCertificates: [`${certificate}${"\n".repeat(index + 1)}`, ...Array(200).fill(certificate)],
    });
    const first = upstreams.of(connectorOf(0), trusting(0));
    for (let index = 1; index < 40; index += 1) upstreams.of(connectorOf(index), trusting(index));
    expect(upstreams.of(connectorOf(0), trusting(0)).send).to.not.equal(first.send);
  });

  it("close connections earlier where those of very many connectors are about to be closed", async () => {
    const longLived = createUpstreams(600_000);
    resources.defer(() => longLived.destroy());
    const registry = resources.add(await startFakeRegistry());
    let closed = 0;
    registry.on("* *", ({ request: { socket }, next }) => {
      socket.once("close", () => {
        closed += 1;
      });
      return next();
    });
    const local = testConnector("harbor", registry.url);
    /** Takes the place of the connections that were there before. */
    const change = (index: number): Upstream =>
      longLived.of({ ...local, allowedRedirectHosts: [`${index}.test`] }, none);
    for (let index = 0; index < 130; index += 1) await request(change(index), "");
    await eventually(
      () => closed === 1,
      () => `${closed} connections were closed`,
    );
  });

  it("share no token between connectors, addresses and credentials", () => {
    const keys = [
      upstreams.of(harbor, none),
      upstreams.of({ ...harbor, uid: "another" }, none),
      upstreams.of(testConnector("harbor", "https://harbor.test:444"), none),
      upstreams.of(harbor, withPassword("one")),
      upstreams.of(harbor, { ...none, credential: { username: "alicep", password: "assword" } }),
    ].map(({ tokenKey }) => tokenKey);
    expect(new Set(keys).size).to.equal(keys.length);
    expect(keys.join("\n")).to.not.contain("assword");
  });

  it("may be destroyed while some of them are about to be closed", async () => {
    const shortLived = createUpstreams(10);
    shortLived.of(harbor, none);
    shortLived.of(testConnector("harbor", "https://harbor.test:444"), none);
    shortLived.destroy();
    await sleep(50); // what is thrown afterwards fails the test
  });

  const changes: readonly (readonly [string, Parameters<Upstreams["of"]>])[] = [
    ["the address", [testConnector("harbor", "https://harbor.test:444"), none]],
    ["a CA certificate", [harbor, { ...none, caCertificates: [""] }]],
    ["an allowed host", [{ ...harbor, allowedRedirectHosts: ["10.0.0.1"] }, none]],
  ];
  for (const [name, [connector, secrets]] of changes) {
    it(`have new connections when ${name} changes`, () => {
      const first = upstreams.of(harbor, none);
      const second = upstreams.of(connector, secrets);
      expect(second.send).to.not.equal(first.send);
      expect(second.uploadAgents).to.not.equal(first.uploadAgents);
      expect(second.guard).to.not.equal(first.guard);
    });
  }

  it("finish what is under way when their connections change", async () => {
    const registry = resources.add(await startFakeRegistry());
    const proxy = resources.add(await startTestProxy({ bodyTimeoutMs: 200 }));
    proxy.connect("harbor", registry.url);
    const client = clientOf(proxy, "harbor");
    const blob = noise("under way", 5_000_000);
    const digest = addBlob(registry.repository("app"), blob);
    let release: () => void = () => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    for (const route of ["GET blob", "PATCH upload"] as const) {
      registry.on(route, async ({ next }) => {
        await released;
        await next();
      });
    }
    const location = (await client("POST", "app/blobs/uploads/")).headers.location ?? "";
    const pull = client("GET", `app/blobs/${digest}`);
    const push = client("PATCH", location, { body: blob });
    await eventually(
      () => registry.requests.filter(({ method }) => method !== "POST").length >= 3,
      () => "nothing is under way",
    );
    proxy.connect("harbor", registry.url, {
      params: [{ name: "allowedRedirectHosts", value: "x" }],
    });
    expect((await client("GET", "none/tags/list")).status).to.equal(404);
    await sleep(600); // longer than connections live that nothing uses
    release();
    expect((await pull).body.equals(blob)).to.equal(true);
    expect((await push).status).to.equal(202);
    const ports = new Set(registry.requests.map(({ remotePort }) => remotePort));
    expect(ports.size).to.be.above(1);
  });
});
