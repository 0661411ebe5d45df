import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, type Route, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob, addManifest } from "../../support/fake-registry-content.ts";
import { noise, sha256 } from "../../support/oci-image.ts";
import { openRaw, type RawConnection } from "../../support/raw-request.ts";
import { oddRegistry } from "../../support/registries/odd-registries.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy, type TestProxyOptions } from "../test-proxy.ts";

const credential = { username: "alice", password: "secret-of-alice" };
const type = "application/vnd.oci.image.manifest.v1+json";
const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: type }));

/** A registry that lets requests of a kind wait, and sees whether they are ended. */
interface SlowRoute {
  /** Requests that have come. */
  readonly came: () => number;
  /** Those of them whose connection was closed before they were answered. */
  readonly ended: () => number;
  /** Answers all of them, and those that come later. */
  readonly release: () => void;
}

function slow(registry: FakeRegistry, route: Route): SlowRoute {
  let [came, ended] = [0, 0];
  const { promise, resolve } = Promise.withResolvers<void>();
  registry.on(
    route,
    async ({ response, next }) => {
      came += 1;
      response.once("close", () => {
        if (!response.writableFinished) ended += 1;
      });
      await promise;
      if (!response.destroyed) await next();
    },
    "before auth",
  );
  return { came: () => came, ended: () => ended, release: resolve };
}

describe("a registry that takes its time", function () {
  this.timeout(20_000);
  const resources = cleanup();
  afterEach(resources.stop);
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;

  const start = async (options: TestProxyOptions = {}): Promise<void> => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    addManifest(registry.repository("app"), "1", { bytes: manifest, mediaType: type });
    proxy = resources.add(await startTestProxy(options));
    proxy.connect("harbor", registry.url, { credential });
    client = clientOf(proxy, "harbor");
  };
  /** Sends a request by a connection of its own, which can be closed in the middle. */
  const open = async (
    method: string,
    path: string,
    body: Buffer = Buffer.alloc(0),
  ): Promise<RawConnection> => {
    const port = Number(proxy.http.split(":")[1]);
    const connection = resources.add(await openRaw({ port }));
    const head = [
      `${method} ${client.base}${path} HTTP/1.1`,
      `Host: ${proxy.http}`,
      `Authorization: ${client.authorization}`,
      `Content-Type: ${type}`,
      ...(body.length > 0 ? [`Content-Length: ${body.length}`] : []),
    ];
    connection.send(Buffer.concat([Buffer.from(`${head.join("\r\n")}\r\n\r\n`), body]));
    return connection;
  };
  const until = (isTrue: () => boolean, what: string): Promise<unknown> =>
    eventually(
      () => isTrue(),
      () => what,
    );

  const digest = sha256(manifest);
  const routes: readonly (readonly [string, Route, string, string, Buffer?])[] = [
    ["a GET", "GET manifest", "GET", "app/manifests/1"],
    ["a HEAD", "HEAD manifest", "HEAD", "app/manifests/1"],
    ["a DELETE", "DELETE manifest", "DELETE", `app/manifests/${digest}`],
    ["the PUT of a manifest", "PUT manifest", "PUT", "app/manifests/2", manifest],
    ["GET /v2/", "GET ping", "GET", "app/manifests/1"],
    ["a token", "GET token", "GET", "app/manifests/1"],
  ];
  for (const [what, route, method, path, body] of routes) {
    it(`is waited for until its client goes, and no longer: ${what}`, async () => {
      await start();
      const waiting = slow(registry, route);
      const connection = await open(method, path, body);
      await until(() => waiting.came() === 1, "the registry was not asked");
      expect(waiting.ended()).to.equal(0);
      connection.stop();
      await until(() => waiting.ended() === 1, "the request to the registry goes on");
      // What comes afterwards is a request of its own.
      waiting.release();
      const options = body === undefined ? {} : { body, headers: { "content-type": type } };
      expect((await client(method, path, options)).status).to.be.within(200, 202);
    });
  }

  for (const [what, route] of [
    ["a token", "GET token"],
    ["GET /v2/", "GET ping"],
  ] as const) {
    it(`is asked once for ${what} by many clients, and until the last of them has gone`, async () => {
      await start();
      const waiting = slow(registry, route);
      const [first, second, third] = [
        await open("GET", "app/manifests/1"),
        await open("GET", "app/manifests/1"),
        await open("GET", "app/manifests/1"),
      ];
      await until(() => waiting.came() === 1, "the registry was not asked");
      const last = client("GET", "app/manifests/1");
      // Each request reads the Secret, and waits for the login in the same turn.
      const { secretReads } = proxy.surroundings;
      await until(() => secretReads.length === 4, "not all requests have come");
      first.stop();
      second.stop();
      third.stop();
      // All of them have gone by the time that another connection has a response.
      expect((await client("GET", "/v2/")).status).to.equal(200);
      expect(waiting.ended()).to.equal(0);
      waiting.release();
      expect((await last).status).to.equal(200);
      expect([waiting.came(), waiting.ended()]).to.deep.equal([1, 0]);
    });
  }

  it("ends what nobody waits for, and asks anew for whoever comes just then", async () => {
    await start();
    const waiting = slow(registry, "GET token");
    const [first, second] = [
      await open("GET", "app/manifests/1"),
      await open("GET", "app/manifests/1"),
    ];
    const { secretReads } = proxy.surroundings;
    await until(() => secretReads.length === 2, "not all requests have come");
    await until(() => waiting.came() === 1, "no token was asked for");
    first.stop();
    second.stop();
    await until(() => waiting.ended() === 1, "the request for a token goes on");
    const later = client("GET", "app/manifests/1");
    await until(() => waiting.came() === 2, "no other token was asked for");
    waiting.release();
    expect((await later).status).to.equal(200);
  });

  it(oddRegistry("slow-first-byte"), async () => {
    await start({ headersTimeoutMs: 300 });
    expect((await client("GET", "app/manifests/1")).status).to.equal(200);
    for (const [route, method, path, body] of [
      ["GET manifest", "GET", "app/manifests/1"],
      ["DELETE manifest", "DELETE", `app/manifests/${digest}`],
      ["PUT manifest", "PUT", "app/manifests/2", manifest],
    ] as const) {
      const waiting = slow(registry, route);
      const options = body === undefined ? {} : { body, headers: { "content-type": type } };
      const answer = await client(method, path, options);
      expect(answer.status).to.equal(503);
      expect(errorIn(answer).message).to.contain("accepted the request but does not answer");
      waiting.release();
    }
  });

  it("may take longer for the body than for the head", async () => {
    await start({ headersTimeoutMs: 300, bodyTimeoutMs: 5000 });
    const blob = noise("blob", 100_000);
    const blobDigest = addBlob(registry.repository("app"), blob);
    registry.on("GET blob", async ({ response }) => {
      response.writeHead(200, { "Content-Length": blob.length });
      response.write(blob.subarray(0, 10));
      await new Promise((resolve) => setTimeout(resolve, 700));
      response.end(blob.subarray(10));
    });
    expect((await client("GET", `app/blobs/${blobDigest}`)).body.equals(blob)).to.equal(true);
  });
});
