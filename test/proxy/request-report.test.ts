import { expect } from "chai";
import type { RequestReport } from "../../src/proxy/request-report.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addBlob } from "../support/fake-registry-content.ts";
import { plainRequest } from "../support/plain-request.ts";
import { openRaw, rawRequest } from "../support/raw-request.ts";
import { basicAuth, clientOf } from "./test-client.ts";
import { type ConnectOptions, startTestProxy, type TestProxy } from "./test-proxy.ts";

describe("the proxy's report of a request", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const reports: RequestReport[] = [];
  const tokens: string[] = [];
  let started = 0;
  let registry: FakeRegistry;
  let proxy: TestProxy;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    proxy = resources.add(
      await startTestProxy({
        observer: {
          requestStarted: () => {
            started += 1;
          },
          requestEnded: (report) => reports.push(report),
          tokenNeeded: (connector, outcome) => tokens.push(`${connector} ${outcome}`),
        },
      }),
    );
    proxy.connect("harbor", registry.url, {
      credential: { username: "alice", password: "secret-of-alice" },
    });
  });
  after(resources.stop);
  beforeEach(() => {
    reports.length = 0;
    tokens.length = 0;
    started = 0;
  });

  const only = async (): Promise<RequestReport> => {
    await eventually(
      () => reports.length > 0,
      () => "there is no report",
    );
    expect(reports).to.have.length(1);
    return reports[0] as RequestReport;
  };

  it("says who has pulled what", async () => {
    const digest = addBlob(registry.repository("app"), Buffer.alloc(10_000));
    await clientOf(proxy, "harbor")("GET", `app/blobs/${digest}`);
    const { identity, durationMs, bytesReceived, bytesSent, ...report } = await only();
    expect(report).to.deep.equal({
      method: "GET",
      operation: "pull blob",
      host: undefined,
      image: undefined,
      ref: { namespace: "team-a", name: "harbor" },
      connector: "team-a/harbor",
      repository: "app",
      reference: digest,
      verb: "pull",
      decision: "allowed",
      reason: undefined,
      status: 200,
      upstreamStatus: 200,
    });
    expect(identity?.user).to.match(/^volume:/);
    expect(durationMs).to.be.at.least(0);
    expect(bytesSent).to.be.within(10_000, 11_000);
    expect(bytesReceived).to.be.below(1_000);
    expect(started).to.equal(1);
  });

  it("counts what was pushed", async () => {
    const push = clientOf(proxy, "harbor");
    const begun = await push("POST", "app/blobs/uploads/");
    const location = String(begun.headers.location);
    await eventually(
      () => reports.length === 1,
      () => "there is no report",
    );
    reports.length = 0;
    await push("PATCH", location, { body: Buffer.alloc(100_000) });
    const report = await only();
    expect(report).to.include({ operation: "push upload", verb: "push", upstreamStatus: 202 });
    expect(report.bytesReceived).to.be.within(100_000, 102_000);
  });

  it("names nobody where nobody was let in, and the connector that was asked for", async () => {
    await clientOf(proxy, "harbor", { token: "wrong" })("GET", "app/tags/list");
    expect(await only()).to.deep.include({
      identity: undefined,
      connector: undefined,
      decision: "refused",
      status: 401,
      upstreamStatus: undefined,
    });
  });

  it("says that a request without a login was challenged, which every client's first one is", async () => {
    const connect = (headers: Readonly<Record<string, string>>): Promise<unknown> =>
      rawRequest(
        { port: Number(proxy.http.split(":")[1]) },
        [
          "CONNECT harbor.test:443 HTTP/1.1",
          "Host: harbor.test:443",
          ...Object.entries(headers).map((header) => header.join(": ")),
          "",
          "",
        ].join("\r\n"),
      );
    const ask = (target: string, headers: Readonly<Record<string, string>>): Promise<unknown> =>
      plainRequest(`http://${proxy.http}/`, { target, headers });
    const absolute = "http://harbor.test/v2/app/tags/list";
    const wrong = basicAuth("wrong", "team-a/harbor");
    for (const [send, status, decision] of [
      [() => ask("/v2/", {}), 401, "challenged"],
      [() => ask("/v2/app/tags/list", {}), 401, "challenged"],
      [() => ask("/v2/", { authorization: wrong }), 401, "refused"],
      [() => ask("/v2/", { authorization: "Basic" }), 401, "refused"],
      [() => ask("/elsewhere", {}), 404, "refused"],
      [() => ask(absolute, {}), 407, "challenged"],
      [() => ask(absolute, { authorization: wrong }), 407, "challenged"],
      [() => ask(absolute, { "proxy-authorization": wrong }), 407, "refused"],
      [() => connect({}), 407, "challenged"],
      [() => connect({ "Proxy-Authorization": wrong }), 407, "refused"],
    ] as const) {
      reports.length = 0;
      await send();
      expect(await only(), `${send}`).to.include({ status, decision, identity: undefined });
    }
  });

  it("says which connector was refused, and why", async () => {
    const other = proxy.connect("other", registry.url);
    await clientOf(proxy, "other", { token: proxy.token("harbor") })("GET", "app/tags/list");
    const report = await only();
    expect(report).to.deep.include({
      ref: { namespace: "team-a", name: other.name },
      connector: undefined,
      decision: "refused",
      status: 403,
    });
    expect(report.reason).to.contain("may not use team-a/other");
  });

  it("comes for what is no request of the API, too", async () => {
    const raw = resources.add(await openRaw({ port: Number(proxy.http.split(":")[1]) }));
    raw.send("GET /v2/%2e%2e/ HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(await only()).to.include({ operation: "none", decision: "refused", status: 404 });
  });

  it("gives a client that went away 499", async () => {
    registry.on("GET tags", () => undefined);
    const raw = resources.add(await openRaw({ port: Number(proxy.http.split(":")[1]) }));
    const token = proxy.token();
    raw.send(
      `GET ${"/v2/namespaces/team-a/connectors/harbor/app/tags/list"} HTTP/1.1\r\nHost: x\r\n` +
        `Authorization: Bearer ${token}\r\n\r\n`,
    );
    await eventually(
      () => registry.requests.some(({ target }) => target.kind === "tags"),
      () => "the registry was not asked",
    );
    raw.reset();
    expect(await only()).to.include({ decision: "allowed", status: 499 });
  });

  describe("says that a request was refused where the registry did not see it:", () => {
    const manifest = (size: number) => ({
      headers: { "content-type": "application/vnd.oci.image.manifest.v1+json" },
      body: Buffer.alloc(size, "x"),
    });
    const connectWith = (name: string, params: ConnectOptions["params"] = []) => {
      proxy.connect(name, registry.url, {
        credential: { username: "alice", password: "secret-of-alice" },
        params,
      });
      return clientOf(proxy, name);
    };
    const sawChange = () =>
      registry.requests.some(({ method }) => method === "PUT" || method === "DELETE");
    beforeEach(() => {
      registry.requests.length = 0;
    });

    it("an immutable tag", async () => {
      const client = connectWith("kept", [{ name: "immutableTags", value: "v*" }]);
      await client("DELETE", "app/manifests/v1");
      expect(await only()).to.include({
        decision: "refused",
        status: 403,
        connector: "team-a/kept",
      });
      registry.repository("app").tags.set("v1", "sha256:0");
      const stop = registry.on("HEAD manifest", ({ send }) =>
        send(200, { "Docker-Content-Digest": "sha256:0" }),
      );
      reports.length = 0;
      await client("PUT", "app/manifests/v1", manifest(2));
      stop();
      expect(await only()).to.include({ decision: "refused", status: 403 });
      expect(sawChange()).to.equal(false);
    });

    it("a manifest that is too large to be held", async () => {
      const client = connectWith("large");
      await client("PUT", "app/manifests/1", manifest(8 * 1024 * 1024 + 1));
      expect(await only()).to.include({ decision: "refused", status: 413 });
      expect(registry.requests).to.deep.equal([]);
    });

    it("a loop", async () => {
      const agent = "oci-connector oci-connector skopeo";
      await connectWith("loop")("GET", "app/tags/list", { headers: { "user-agent": agent } });
      expect(await only()).to.include({ decision: "refused", status: 403 });
      expect(registry.requests).to.deep.equal([]);
    });

    it("an upload that nobody has begun", async () => {
      await connectWith("unknown")("PUT", "app/blobs/uploads/x?digest=sha256:0");
      expect(await only()).to.include({ decision: "refused", status: 404 });
      expect(registry.requests).to.deep.equal([]);
    });

    it("a rule", async () => {
      await connectWith("ruled", [{ name: "rules", value: "[]" }])("GET", "app/tags/list");
      expect(await only()).to.include({ decision: "refused", status: 403 });
      expect(registry.requests).to.deep.equal([]);
    });

    it("a token server that gets no login", async () => {
      const realm = 'Bearer realm="https://elsewhere.test/token"';
      const stop = registry.on(
        "* *",
        ({ response }) => void response.writeHead(401, { "WWW-Authenticate": realm }).end(),
        "before auth",
      );
      await connectWith("realm")("GET", "app/tags/list");
      stop();
      expect(await only()).to.include({ decision: "refused", status: 403 });
    });
  });

  it("says that it was allowed where the registry, or its token server, refuses it", async () => {
    await clientOf(proxy, "harbor")("GET", "app/manifests/none");
    expect(await only()).to.include({ decision: "allowed", status: 404, upstreamStatus: 404 });
    reports.length = 0;
    const rights = registry.auth.rights;
    registry.auth.rights = () => [];
    await clientOf(proxy, "harbor")("GET", "refused/manifests/1");
    registry.auth.rights = rights;
    expect(await only()).to.include({ decision: "allowed", status: 403 });
  });

  it("tells where registry tokens came from", async () => {
    const manifest = clientOf(proxy, "harbor");
    await manifest("GET", "new/manifests/1");
    await manifest("GET", "new/manifests/1");
    expect(tokens).to.deep.equal(["team-a/harbor fetched", "team-a/harbor cached"]);
  });
});
