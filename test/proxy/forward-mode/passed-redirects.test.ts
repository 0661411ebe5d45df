import { once } from "node:events";
import { expect } from "chai";
import type { RequestReport } from "../../../src/proxy/request-report.ts";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob, addManifest } from "../../support/fake-registry-content.ts";
import { redirectBlobs, storeBlobsIn, truncateBlobs } from "../../support/hostile-downloads.ts";
import { noise } from "../../support/oci-image.ts";
import {
  type PlainRequestOptions,
  type PlainResponse,
  plainRequest,
} from "../../support/plain-request.ts";
import { clientOf, errorIn, sealedUpload } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";
import { connectTlsInside, proxyAuth } from "./connect-client.ts";

const login = { username: "alice", password: "secret-of-alice" };
const secret = Buffer.from("alice:secret-of-alice").toString("base64");

describe("redirects that clients of the forward proxy follow themselves", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const undo = cleanup();
  const reports: RequestReport[] = [];
  const blob = noise("blob", 100_000);
  let registry: FakeRegistry;
  let storage: FakeRegistry;
  let proxy: TestProxy;
  let credential: string;
  let path: string;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer", hostname: "harbor.test" }));
    storage = resources.add(await startFakeRegistry({ hostname: "storage.test" }));
    proxy = resources.add(
      await startTestProxy({
        retryDelaysMs: [1, 1, 1, 1],
        lookup: (_name, _options, callback) =>
          callback(null, [{ address: "127.0.0.1", family: 4 }]),
        tunnels: {
          any: false,
          domains: [],
          networks: [],
          neverNetworks: [],
          hosts: [{ host: "storage.test", port: undefined }],
        },
        observer: {
          requestStarted: () => undefined,
          requestEnded: (report) => reports.push(report),
          tokenNeeded: () => undefined,
        },
      }),
    );
    connect(registry);
    credential = proxyAuth(proxy.token("harbor"), "harbor");
    path = `/v2/app/blobs/${addBlob(registry.repository("app"), blob)}`;
  });
  beforeEach(() => {
    reports.length = 0;
    registry.requests.length = 0;
    storage.requests.length = 0;
  });
  afterEach(undo.stop);
  after(resources.stop);

  function connect({ url, ca = "" }: FakeRegistry, redirects = "pass", allowed?: string): void {
    const params = [
      { name: "redirects", value: redirects },
      ...(allowed === undefined ? [] : [{ name: "allowedRedirectHosts", value: allowed }]),
    ];
    proxy.connect("harbor", url, { credential: login, caCertificates: [ca], params });
  }
  const ask = (
    target: string,
    { headers, ...options }: PlainRequestOptions = {},
  ): Promise<PlainResponse> =>
    plainRequest(`http://${proxy.http}/`, {
      target: target.startsWith("/") ? registry.url + target : target,
      ...options,
      headers: { "proxy-authorization": credential, ...headers },
    });
  /** What is followed inside shows nothing of where it was. */
  const expectFollowed = (answer: PlainResponse): void => {
    expect(answer.status).to.equal(200);
    expect(answer.headers.location).to.equal(undefined);
    expect(storage.requests).to.have.length.above(0);
    for (const { headers } of storage.requests) {
      expect(headers).to.not.have.any.keys("authorization", "proxy-authorization");
    }
  };

  for (const status of [301, 302, 303, 307, 308]) {
    for (const method of ["GET", "HEAD"]) {
      it(`pass with ${status} for ${method}, as the registry says it`, async () => {
        undo.defer(
          registry.on("* blob", ({ send }) =>
            send(
              status,
              {
                Location: "http://storage.test:8/b/%2Fx?X-Amz-Signature=f00d%3D&a=b",
                "Docker-Content-Digest": "sha256:1",
                "Cache-Control": "max-age=60",
                "Content-Type": "text/html",
                "Set-Cookie": "a=b",
                "WWW-Authenticate": "Basic",
                "X-Own": "1",
              },
              Buffer.from("<a href=/>there</a>"),
            ),
          ),
        );
        const answer = await ask(path, { method, headers: { range: "bytes=0-9" } });
        expect(answer.status).to.equal(status);
        expect(answer.headers).to.include({
          location: "http://storage.test:8/b/%2Fx?X-Amz-Signature=f00d%3D&a=b",
          "content-length": "0",
          "docker-content-digest": "sha256:1",
          "cache-control": "max-age=60",
        });
        expect(answer.headers).to.not.have.any.keys(
          "content-type",
          "set-cookie",
          "www-authenticate",
          "x-own",
        );
        expect(answer.body).to.have.length(0);
        expect(answer.complete).to.equal(true);
      });
    }
  }

  it("lead to a host that the proxy passes on to, where the operator lets it, with no login", async () => {
    undo.defer(storeBlobsIn(storage, registry));
    const { headers } = await ask(path);
    expect(storage.requests).to.deep.equal([]);
    const answer = await ask(headers.location ?? "");
    expect(answer.body.equals(blob)).to.equal(true);
    expect(storage.requests).to.have.length(1);
    expect(storage.requests[0]?.headers).to.not.have.any.keys(
      "authorization",
      "proxy-authorization",
    );
    undo.defer(redirectBlobs(registry, () => `${storage.url.replace("storage", "other")}/x`));
    const elsewhere = await ask((await ask(path)).headers.location ?? "");
    expect(elsewhere.status).to.equal(403);
    expect(errorIn(elsewhere).message).to.contain("not among the hosts that are allowed");
  });

  it("are a pull that was let through, in the report, and nowhere with their URL", async () => {
    undo.defer(redirectBlobs(registry, () => "http://storage.test/x?sig=secret-signature"));
    await ask(path);
    await eventually(
      () => reports.length === 1,
      () => "there is no report",
    );
    expect(reports[0]).to.include({
      operation: "pull blob",
      connector: "team-a/harbor",
      reference: path.slice("/v2/app/blobs/".length),
      decision: "allowed",
      reason: undefined,
      status: 307,
      upstreamStatus: 307,
    });
    expect(JSON.stringify(reports) + proxy.log()).to.not.contain("secret-signature");
  });

  it("go out after a fresh token, and after a way within the registry", async () => {
    undo.defer(
      registry.on("* blob", ({ query, send }) =>
        query.has("moved")
          ? send(307, { Location: "http://storage.test/x" })
          : send(307, { Location: "?moved" }),
      ),
    );
    registry.auth.tokens.clear();
    const answer = await ask(path);
    expect(answer.headers.location).to.equal("http://storage.test/x");
    const blobs = registry.requests.filter(({ target }) => target.kind === "blob");
    const [, first, second] = blobs;
    expect(blobs).to.have.length(3);
    expect(second?.url).to.equal(`${path}?moved`);
    expect(second?.headers.authorization).to.equal(first?.headers.authorization);
  });

  describe("are followed inside", () => {
    it("where nothing is said, or the connector says so", async () => {
      undo.defer(storeBlobsIn(storage, registry));
      undo.defer(() => connect(registry));
      connect(registry, "follow", "storage.test");
      expectFollowed(await ask(path));
    });

    it("under the proxy's own name, where the Pod's token is a login that a client may take along", async () => {
      connect(registry, "pass", "storage.test");
      undo.defer(() => connect(registry));
      undo.defer(storeBlobsIn(storage, registry));
      expectFollowed(await clientOf(proxy, "harbor")("GET", path.replace("/v2/", "")));
    });

    it("for manifests, whose digest a storage host does not name", async () => {
      connect(registry, "pass", "storage.test");
      undo.defer(() => connect(registry));
      const bytes = Buffer.from("{}");
      const mediaType = "application/vnd.oci.image.manifest.v1+json";
      const digest = addManifest(registry.repository("app"), "1", { mediaType, bytes });
      undo.defer(
        registry.on("* manifest", ({ send }) =>
          send(307, { Location: `${storage.url}/m`, "Docker-Content-Digest": digest }),
        ),
      );
      undo.defer(storage.on("* /m", ({ send }) => send(200, { "Content-Type": mediaType }, bytes)));
      const answer = await ask("/v2/app/manifests/1");
      expectFollowed(answer);
      expect(answer.headers["docker-content-digest"]).to.equal(digest);
    });

    it("within the registry, as it is or as it calls itself", async () => {
      for (const location of ["?moved", `${registry.url.replace("http", "https")}${path}?moved`]) {
        const stop = registry.on("* blob", ({ query, send, next }) =>
          query.has("moved") ? next() : send(307, { Location: location }),
        );
        const answer = await ask(path);
        stop();
        expect(answer.status).to.equal(200);
        expect(answer.body.equals(blob)).to.equal(true);
      }
    });

    it("where their URL has a login, the storage's or the connector's", async () => {
      connect(registry, "pass", "storage.test");
      undo.defer(() => connect(registry));
      undo.defer(storage.on("* /x", ({ send }) => send(200, {}, blob)));
      for (const location of [
        () => storage.url.replace("//", "//alice:secret-of-storage@"),
        () => storage.url.replace("//", "//alice@"),
        () => `${storage.url}/x?token=`,
      ]) {
        const stop = registry.on("* blob", ({ request, send }) => {
          const { authorization = "" } = request.headers;
          const shown = location().endsWith("=") ? authorization.replace("Bearer ", "") : "/x";
          send(307, { Location: location() + shown });
        });
        const answer = await ask(path);
        stop();
        expectFollowed(answer);
        expect(answer.rawHeaders.join()).to.not.contain("alice");
      }
    });

    it("in the middle of a blob, whose beginning the registry has sent itself", async () => {
      connect(registry, "pass", "storage.test");
      undo.defer(() => connect(registry));
      undo.defer(storeBlobsIn(storage, registry));
      undo.defer(truncateBlobs(registry, 40_000, { times: 1 }));
      const answer = await ask(path);
      expectFollowed(answer);
      expect(answer.body.equals(blob)).to.equal(true);
      expect(storage.requests[0]?.headers.range).to.equal("bytes=40000-");
    });
  });

  it("are refused where the proxy would not follow them for what they say", async () => {
    const secure = resources.add(
      await startFakeRegistry({ auth: "basic", tls: true, hostname: "harbor.test" }),
    );
    for (const [location, status, message] of [
      ["https://[", 502, "not a URL"],
      ["javascript:alert(1)", 502, "not a URL"],
      ["https://169.254.169.254/latest", 403, "never connected to"],
      ["https://10.0.0.1/x", 403, "10.0.0.1"],
    ] as const) {
      const stop = redirectBlobs(registry, () => location);
      const answer = await ask(path);
      stop();
      expect(answer.status).to.equal(status);
      expect(errorIn(answer).message).to.contain(message);
      expect(answer.headers.location).to.equal(undefined);
    }
    connect(secure);
    undo.defer(() => connect(registry));
    secure.on("* blob", ({ send }) => send(307, { Location: "http://storage.test/x?sig=1" }));
    const text = await getInside(secure, path);
    expect(text).to.match(/^HTTP\/1\.1 502 .*from https to http/s);
    expect(text).to.not.contain("sig=1");
  });

  it("leave uploads alone: where those go on is sealed, as ever", async () => {
    const begun = await ask("/v2/app/blobs/uploads/", { method: "POST" });
    expect(begun.status).to.equal(202);
    expect(begun.headers.location).to.match(sealedUpload);
    const moved = await (async () => {
      const stop = registry.on("* upload", ({ send }) =>
        send(307, { Location: "http://storage.test/up?sig=presigned" }),
      );
      const answer = await ask(registry.url + begun.headers.location, {
        method: "PATCH",
        body: "x",
      });
      stop();
      return answer;
    })();
    expect(moved.status).to.equal(502);
    expect(moved.headers.location).to.equal(undefined);
    expect(moved.body.toString()).to.not.contain("presigned");
  });

  it("lead out of an intercepted connection into a tunnel, in which TLS is the storage's own", async () => {
    const secure = resources.add(
      await startFakeRegistry({ auth: "bearer", tls: true, hostname: "harbor.test" }),
    );
    const store = resources.add(await startFakeRegistry({ tls: true, hostname: "storage.test" }));
    addBlob(secure.repository("app"), blob);
    connect(secure);
    undo.defer(() => connect(registry));
    undo.defer(storeBlobsIn(store, secure));
    const head = await getInside(secure, path);
    const [, location = ""] = /^location: (.*)\r$/im.exec(head) ?? [];
    expect(head).to.match(/^HTTP\/1\.1 307 /);
    expect(head).to.not.contain(secret).and.not.contain("secret-of-alice");
    const { host, pathname, search } = new URL(location);
    expect(host).to.equal(store.host);
    expect(store.requests).to.deep.equal([]);
    const text = await getInside(store, pathname + search, store.ca);
    expect(text.endsWith(blob.toString("latin1"))).to.equal(true);
    expect(JSON.stringify(store.requests)).to.not.match(/authorization/i);
  });

  /** GETs a path by CONNECT. @param ca PEM of who has signed for the host, if not the proxy */
  async function getInside(to: FakeRegistry, target: string, ca?: string): Promise<string> {
    const trust = ca === undefined ? {} : { ca };
    const socket = await connectTlsInside(proxy, { to: to.host, credential }, trust);
    resources.defer(() => socket.destroy());
    let text = "";
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
    });
    socket.on("error", () => undefined);
    const closed = once(socket, "close");
    socket.write(`GET ${target} HTTP/1.1\r\nHost: ${to.host}\r\nConnection: close\r\n\r\n`);
    await closed;
    return text;
  }
});
