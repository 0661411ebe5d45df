import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob } from "../../support/fake-registry-content.ts";
import { failFirst } from "../../support/hostile-answers.ts";
import { redirectBlobs } from "../../support/hostile-downloads.ts";
import { openRaw } from "../../support/raw-request.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const credential = { username: "alice", password: "secret-of-alice" };
const soon = { "Retry-After": "0" };

describe("429 and Retry-After: a registry that asks to be left alone for a while", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;
  let path: string;
  let config: string;

  beforeEach(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    proxy = resources.add(await startTestProxy());
    proxy.connect("harbor", registry.url, { credential });
    client = clientOf(proxy, "harbor");
    config = addBlob(registry.repository("app"), Buffer.from("{}"));
    path = `app/blobs/${config}`;
  });
  afterEach(resources.stop);

  const manifest = (): string => JSON.stringify({ config: { digest: config }, layers: [] });
  const count = (kind: string): number =>
    registry.requests.filter(({ target }) => target.kind === kind).length;

  for (const status of [429, 503]) {
    for (const method of ["GET", "HEAD"]) {
      it(`with ${status}, is asked again: ${method}`, async () => {
        resources.defer(failFirst(registry, `${method} blob`, { times: 2, status, headers: soon }));
        const answer = await client(method, path);
        expect(answer.status).to.equal(200);
        expect(count("blob")).to.equal(3);
      });
    }

    it(`with ${status}, gets a manifest again, whole`, async () => {
      resources.defer(failFirst(registry, "PUT manifest", { times: 2, status, headers: soon }));
      const type = "application/vnd.oci.image.manifest.v1+json";
      const headers = { "content-type": type };
      const answer = await client("PUT", "app/manifests/1", { headers, body: manifest() });
      expect(answer.status).to.equal(201);
      const pulled = await client("GET", "app/manifests/1");
      expect(pulled.body.toString()).to.equal(manifest());
    });

    it(`with ${status}, gets the begin of an upload again`, async () => {
      resources.defer(failFirst(registry, "POST uploads", { times: 1, status, headers: soon }));
      expect((await client("POST", "app/blobs/uploads/")).status).to.equal(202);
    });

    for (const [who, route] of [
      ["its token server", "GET token"],
      ["GET /v2/", "GET ping"],
    ] as const) {
      it(`with ${status} to ${who}, is asked again`, async () => {
        const failure = { times: 2, status, headers: soon };
        resources.defer(failFirst(registry, route, failure, "before auth"));
        expect((await client("GET", path)).status).to.equal(200);
      });

      it(`with ${status} to ${who} before an upload, is asked again before a byte is read`, async () => {
        const begun = await client("POST", "app/blobs/uploads/");
        expect(begun.status).to.equal(202);
        const replica = resources.add(await startTestProxy({ replicaOf: proxy }));
        const failure = { times: 2, status, headers: soon };
        resources.defer(failFirst(registry, route, failure, "before auth"));
        const patched = await clientOf(replica, "harbor", { token: client.token })(
          "PATCH",
          String(begun.headers.location),
          { body: "content" },
        );
        expect(patched.status).to.equal(202);
        expect(patched.headers.range).to.equal("0-6");
      });
    }

    it(`with ${status} and a longer wait than a client has, says so at once`, async () => {
      const headers = { "Retry-After": "21" };
      resources.defer(failFirst(registry, "GET blob", { times: 9, status, headers }));
      const answer = await client("GET", path);
      expect(answer.status).to.equal(status);
      expect(answer.headers["retry-after"]).to.equal("21");
      expect(count("blob")).to.equal(1);
    });

    it(`with ${status} and no word of when, is not asked again`, async () => {
      resources.defer(failFirst(registry, "GET blob", { times: 9, status }));
      expect((await client("GET", path)).status).to.equal(status);
      expect(count("blob")).to.equal(1);
    });

    it(`with ${status} to its token server for longer, says who it is and when to come back`, async () => {
      const failure = { times: 9, status, headers: { "Retry-After": "3600" } };
      resources.defer(failFirst(registry, "GET token", failure, "before auth"));
      const answer = await client("GET", path);
      expect(answer.status).to.equal(503);
      expect(answer.headers["retry-after"]).to.equal("3600");
      expect(errorIn(answer).message).to.contain(
        `token server ${registry.host} answered ${status}`,
      );
      expect(count("token")).to.equal(1);
    });
  }

  it("in the name of its storage, is asked again", async () => {
    let times = 0;
    resources.defer(redirectBlobs(registry, () => `${registry.url}/storage`));
    resources.defer(
      registry.on("GET /storage", ({ send }) => {
        times += 1;
        if (times === 1) send(503, soon);
        else send(200, {}, Buffer.from("{}"));
      }),
    );
    expect((await client("GET", path)).status).to.equal(200);
  });

  for (const status of [500, 502, 404]) {
    it(`with ${status}, is not asked again, whatever it says`, async () => {
      resources.defer(failFirst(registry, "GET blob", { times: 1, status, headers: soon }));
      expect((await client("GET", path)).status).to.equal(status);
      expect(count("blob")).to.equal(1);
    });
  }

  it("is not asked again for a client that has gone", async () => {
    const headers = { "Retry-After": "1" };
    resources.defer(failFirst(registry, "GET blob", { times: 9, status: 429, headers }));
    const connection = await openRaw({ port: Number(proxy.http.split(":")[1]) });
    connection.send(
      `GET ${client.base}${path} HTTP/1.1\r\nHost: x\r\nAuthorization: ${client.authorization}\r\n\r\n`,
    );
    await eventually(
      () => count("blob") === 1,
      () => "nothing has arrived",
    );
    connection.stop();
    await new Promise((resolve) => setTimeout(resolve, 1200));
    expect(count("blob")).to.equal(1);
  });
});
