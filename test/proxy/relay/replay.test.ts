import { expect } from "chai";
import { version } from "../../../src/version.ts";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob, addManifest } from "../../support/fake-registry-content.ts";
import { oddHeaders, sendOddHeaders } from "../../support/hostile-answers.ts";
import {
  ignoreRanges,
  lieAbout416,
  redirectBlobs,
  redirectForEver,
  storeBlobsIn,
} from "../../support/hostile-downloads.ts";
import { noise, sha256 } from "../../support/oci-image.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const credential = { username: "alice", password: "secret-of-alice" };

describe("a registry's answers through the proxy", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const undo = cleanup();
  let registry: FakeRegistry;
  let storage: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;
  const blob = noise("blob", 500_000);
  let digest: string;
  let path: string;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    // Another port is another origin.
    storage = resources.add(await startFakeRegistry());
    proxy = resources.add(await startTestProxy());
    proxy.connect("harbor", registry.url, { credential });
    client = clientOf(proxy, "harbor");
    digest = addBlob(registry.repository("app"), blob);
    path = `app/blobs/${digest}`;
  });
  beforeEach(() => {
    registry.requests.length = 0;
    storage.requests.length = 0;
  });
  afterEach(undo.stop);
  after(resources.stop);

  const seen = () =>
    registry.requests.filter(({ target }) => target.kind !== "ping" && target.kind !== "token");

  describe("that are redirected", () => {
    it("are fetched from the storage, without a credential", async () => {
      undo.defer(storeBlobsIn(storage, registry));
      const answer = await client("GET", path, {
        headers: { cookie: "a=b", accept: "x/y", "if-none-match": "z", "x-own": "1" },
      });
      expect(answer.status).to.equal(200);
      expect(answer.body.equals(blob)).to.equal(true);
      expect(answer.headers.location).to.equal(undefined);
      expect(answer.headers["accept-ranges"]).to.equal("bytes");
      const headers = storage.requests[0]?.headers;
      expect(headers).to.include({ accept: "x/y", "user-agent": `oci-connector/${version}` });
      for (const name of ["authorization", "cookie", "if-none-match", "x-own", "referer"]) {
        expect(headers).to.not.have.property(name);
      }
    });

    it("pass Range on", async () => {
      undo.defer(storeBlobsIn(storage, registry));
      const answer = await client("GET", path, { headers: { range: "bytes=499990-" } });
      expect(answer.status).to.equal(206);
      expect(answer.headers["content-range"]).to.equal("bytes 499990-499999/500000");
      expect(answer.body.equals(blob.subarray(499_990))).to.equal(true);
      expect(storage.requests[0]?.headers.range).to.equal("bytes=499990-");
    });

    it("keep the digest that the registry has named", async () => {
      undo.defer(
        registry.on("* blob", ({ send }) =>
          send(307, { Location: `${storage.url}/x`, "Docker-Content-Digest": digest }),
        ),
      );
      undo.defer(storage.on("* /x", ({ send }) => send(200, {}, blob)));
      for (const method of ["GET", "HEAD"]) {
        const answer = await client(method, path);
        expect(answer.status).to.equal(200);
        expect(answer.headers["docker-content-digest"]).to.equal(digest);
        expect(answer.headers["content-length"]).to.equal("500000");
        expect(answer.body).to.have.length(method === "GET" ? 500_000 : 0);
      }
    });

    it("come without what the storage says of itself", async () => {
      undo.defer(redirectBlobs(registry, () => `${storage.url}/x`));
      const odd = { "X-Amz-Request-Id": "1", Server: "S3", "Content-Disposition": "x" };
      const good = { "Content-Type": "x/y", ETag: '"1"', "Content-Encoding": "gzip" };
      undo.defer(storage.on("* /x", ({ send }) => send(200, { ...odd, ...good }, blob)));
      undo.defer(sendOddHeaders(storage));
      const { headers } = await client("GET", path);
      expect(headers).to.include({
        "content-type": "x/y",
        etag: '"1"',
        "content-encoding": "gzip",
      });
      const odder = Object.keys(lowerCase({ ...odd, ...oddHeaders.kept }));
      expect(headers).to.not.have.any.keys([...odder, ...hiddenNames]);
    });

    for (const status of [301, 302, 303, 307, 308]) {
      it(`with ${status}, at the registry itself, keep its token`, async () => {
        undo.defer(
          registry.on("* blob", ({ query, send, next }) =>
            query.has("moved") ? next() : send(status, { Location: `./${digest}?moved=%3D` }),
          ),
        );
        const answer = await client("GET", path);
        expect(answer.status).to.equal(200);
        expect(answer.body.equals(blob)).to.equal(true);
        const [first, second] = seen();
        expect(second?.url).to.equal(`/v2/app/blobs/${digest}?moved=%3D`);
        expect(second?.headers.authorization).to.equal(first?.headers.authorization);
      });
    }

    it("follow five hops, and not six", async () => {
      const hops = (count: number) =>
        registry.on("* blob", ({ query, send, next }) => {
          const hop = Number(query.get("hop") ?? 0);
          return hop === count ? next() : send(307, { Location: `?hop=${hop + 1}` });
        });
      undo.defer(hops(10));
      expect((await client("GET", path)).status).to.equal(200);
      undo.defer(hops(11));
      expect((await client("GET", path)).status).to.equal(502);
    });

    it("without end are a registry's fault", async () => {
      undo.defer(redirectForEver(registry));
      const answer = await client("GET", path);
      expect(answer.status).to.equal(502);
      expect(errorIn(answer).message).to.contain("10 redirects were followed");
      expect(seen()).to.have.length(11);
    });

    it("to nowhere are a registry's fault", async () => {
      for (const location of ["https://[", "ftp://127.0.0.1/x", "javascript:alert(1)"]) {
        const stop = redirectBlobs(registry, () => location);
        const answer = await client("GET", path);
        stop();
        expect(answer.status).to.equal(502);
        expect(errorIn(answer).message).to.contain("not a URL");
      }
    });

    it("to a private address are refused, unless the connector allows it", async () => {
      const inside = resources.add(await startFakeRegistry({ hostname: "127.0.0.2" }));
      undo.defer(storeBlobsIn(inside, registry));
      const refused = await client("GET", path);
      expect(refused.status).to.equal(403);
      expect(errorIn(refused).message).to.contain("127.0.0.2").and.contain("allowedRedirectHosts");
      expect(refused.body.toString()).to.not.contain("Signature");
      expect(inside.requests).to.deep.equal([]);

      const params = [{ name: "allowedRedirectHosts", value: "127.0.0.2" }];
      proxy.connect("allowing", registry.url, { credential, params });
      const allowed = await clientOf(proxy, "allowing")("GET", path);
      expect(allowed.body.equals(blob)).to.equal(true);
    });

    it("to a name that leads to one are refused as well", async () => {
      const inside = resources.add(await startFakeRegistry({ hostname: "localhost" }));
      undo.defer(storeBlobsIn(inside, registry));
      const refused = await client("GET", path);
      expect(refused.status).to.equal(403);
      expect(errorIn(refused).message).to.contain("host localhost is at ");
      expect(inside.requests).to.deep.equal([]);
    });

    it("from https to http are refused", async () => {
      const secure = resources.add(await startFakeRegistry({ tls: true }));
      const other = addBlob(secure.repository("app"), blob);
      proxy.connect("secure", secure.url, { caCertificates: [secure.ca ?? ""] });
      secure.on("* blob", ({ send }) => send(307, { Location: `${storage.url}/x?sig=1` }));
      const answer = await clientOf(proxy, "secure")("GET", `app/blobs/${other}`);
      expect(answer.status).to.equal(502);
      expect(errorIn(answer).message).to.contain("from https to http");
      expect(answer.body.toString()).to.not.contain("sig=1");
      expect(storage.requests).to.deep.equal([]);
    });

    it("to a storage that is gone, say so without its URL", async () => {
      const gone = await startFakeRegistry();
      await gone.stop();
      undo.defer(redirectBlobs(registry, () => `${gone.url}/x?sig=secret-signature`));
      const answer = await client("GET", path);
      expect(answer.status).to.equal(503);
      expect(errorIn(answer).message).to.contain("storage").and.contain("nothing listens there");
      expect(answer.body.toString() + proxy.log()).to.not.contain("secret-signature");
    });

    it("after a write, are followed at the registry alone", async () => {
      const config = addBlob(registry.repository("app"), Buffer.from("{}"));
      const body = JSON.stringify({ config: { digest: config }, layers: [] });
      const move = (location: string, status = 307) =>
        registry.on("* manifest", ({ query, send, next }) =>
          query.has("moved") ? next() : send(status, { Location: location }),
        );
      const stop = move("?moved");
      expect((await client("PUT", "app/manifests/moved", { body })).status).to.equal(201);
      stop();
      expect(registry.repository("app").tags.has("moved")).to.equal(true);
      for (const [location, status] of [
        [`${storage.url}/x?sig=1`, 307],
        [`${storage.url}/x?sig=1`, 308],
        ["?moved", 302],
      ] as const) {
        for (const method of ["PUT", "DELETE"]) {
          const end = move(location, status);
          const options = method === "PUT" ? { body } : {};
          const answer = await client(method, "app/manifests/elsewhere", options);
          end();
          expect(answer.status).to.equal(502);
          expect(errorIn(answer).message).to.contain("redirects");
          expect(answer.body.toString()).to.not.contain("sig=1");
        }
      }
      expect(storage.requests).to.deep.equal([]);
    });
  });

  describe("of the registry, untouched", () => {
    it("HEAD of a blob and of a manifest", async () => {
      const bytes = Buffer.from('{ "layers": [ ] }');
      const mediaType = "application/vnd.oci.image.manifest.v1+json";
      const manifest = addManifest(registry.repository("app"), "1", { mediaType, bytes });
      const answer = await client("HEAD", "app/manifests/1");
      expect(answer.status).to.equal(200);
      expect(answer.headers).to.include({
        "content-type": mediaType,
        "content-length": String(bytes.length),
        "docker-content-digest": manifest,
      });
      expect(answer.body).to.have.length(0);
      expect((await client("HEAD", path)).headers["content-length"]).to.equal("500000");
      const missing = await client("HEAD", "app/manifests/none");
      expect(missing.status).to.equal(404);
      expect(missing.headers["content-length"]).to.match(/^[1-9]/);
    });

    it("conditional requests", async () => {
      const { etag } = (await client("HEAD", path)).headers;
      for (const method of ["GET", "HEAD"]) {
        const answer = await client(method, path, { headers: { "if-none-match": etag ?? "" } });
        expect(answer.status).to.equal(304);
        expect(answer.headers.etag).to.equal(etag);
        expect(answer.body).to.have.length(0);
        expect(answer.complete).to.equal(true);
      }
    });

    it("ranges", async () => {
      const one = await client("GET", path, { headers: { range: "bytes=10-19" } });
      expect(one.status).to.equal(206);
      expect(one.headers).to.include({
        "content-range": "bytes 10-19/500000",
        "content-length": "10",
        "accept-ranges": "bytes",
      });
      expect(one.body.equals(blob.subarray(10, 20))).to.equal(true);
      const several = await client("GET", path, { headers: { range: "bytes=0-1,3-4" } });
      expect(several.status).to.equal(200);
      expect(seen().at(-1)?.headers.range).to.equal("bytes=0-1,3-4");
      const none = await client("GET", path, { headers: { range: "bytes=500000-" } });
      expect(none.status).to.equal(416);
      expect(none.headers["content-range"]).to.equal("bytes */500000");
    });

    it("a registry that knows no ranges", async () => {
      undo.defer(ignoreRanges(registry));
      const answer = await client("GET", path, { headers: { range: "bytes=10-19" } });
      expect(answer.status).to.equal(200);
      expect(answer.body.equals(blob)).to.equal(true);
    });

    for (const end of ["close", "open"] as const) {
      it(`a 416 that promises more than it has, and stays ${end}`, async () => {
        undo.defer(lieAbout416(registry, end));
        const answer = await client("GET", path, { headers: { range: "bytes=500000-" } });
        expect(answer.status).to.equal(416);
        expect(answer.headers["content-length"]).to.equal("14");
        expect(answer.body.toString()).to.equal("invalid range\n");
      });
    }

    const errors: readonly (readonly [number, string, string])[] = [
      [404, "application/json; charset=utf-8", '{ "errors": [ {"code":"MANIFEST_UNKNOWN"} ] }'],
      [404, "text/plain", "not found"],
      [400, "application/json", '{"errors":[{"code":"DIGEST_INVALID","detail":{"x":"ü"}}]}'],
      [405, "text/html", "<h1>no</h1>"],
      [406, "application/json", "{}"],
      [413, "text/html", "<h1>too large</h1>"],
      [429, "application/json", '{"errors":[{"code":"TOOMANYREQUESTS"}]}'],
      [500, "text/html", "<h1>broken</h1>"],
      [502, "text/html", ""],
      [503, "text/plain", "later"],
    ];
    for (const [status, type, body] of errors) {
      it(`${status} with ${type}`, async () => {
        undo.defer(
          registry.on("GET blob", ({ send }) =>
            send(status, { "Content-Type": type, "Retry-After": "70" }, Buffer.from(body)),
          ),
        );
        const answer = await client("GET", path);
        expect(answer.status).to.equal(status);
        expect(answer.headers).to.include({ "content-type": type, "retry-after": "70" });
        expect(answer.body.toString()).to.equal(body);
        expect(answer.headers["content-length"]).to.equal(String(Buffer.byteLength(body)));
      });
    }

    it("an error without an end, as far as 64 KiB", async () => {
      undo.defer(
        registry.on("GET blob", ({ response }) => {
          response.writeHead(500, { "Content-Type": "text/plain" });
          response.write("x".repeat(60_000));
          response.write("y".repeat(1_000_000));
        }),
      );
      const answer = await client("GET", path);
      expect(answer.status).to.equal(500);
      expect(answer.body.length).to.be.within(60_000, 65_536);
      expect(answer.complete).to.equal(true);
    });

    it("bytes that are compressed already", async () => {
      undo.defer(
        registry.on("GET blob", ({ send, request }) =>
          send(
            200,
            { "Content-Encoding": "gzip", Vary: String(request.headers["accept-encoding"]) },
            blob,
          ),
        ),
      );
      const headers = { "accept-encoding": "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5" };
      const answer = await client("GET", path, { headers });
      expect(answer.headers["content-encoding"]).to.equal("gzip");
      expect(answer.headers.vary).to.equal(headers["accept-encoding"]);
      expect(answer.body.equals(blob)).to.equal(true);
    });

    it("a body of unknown length", async () => {
      undo.defer(
        registry.on("GET blob", ({ response }) => {
          response.write(blob.subarray(0, 1000));
          response.end(blob.subarray(1000));
        }),
      );
      const answer = await client("GET", path);
      expect(answer.headers["transfer-encoding"]).to.equal("chunked");
      expect(answer.body.equals(blob)).to.equal(true);
      expect(answer.complete).to.equal(true);
    });

    it("headers, but for those that are for others", async () => {
      undo.defer(sendOddHeaders(registry));
      for (const target of [path, "app/manifests/none"]) {
        const { headers } = await client("GET", target);
        expect(headers).to.include(lowerCase(oddHeaders.kept));
        expect(headers).to.not.have.any.keys(hiddenNames);
      }
    });

    it("headers that are no ASCII", async () => {
      undo.defer(
        registry.on("* blob", ({ request, response }) => {
          const head = `HTTP/1.1 200 OK\r\nWarning: 299 - "Überholt ✓"\r\nX-Latin: \xe4\r\nContent-Length: 2\r\nConnection: close\r\n\r\n`;
          request.socket.write(
            Buffer.concat([
              Buffer.from(head.slice(0, head.indexOf("\xe4"))),
              Buffer.from([0xe4]),
              Buffer.from(`${head.slice(head.indexOf("\xe4") + 1)}ok`),
            ]),
          );
          void response;
        }),
      );
      const ok = addBlob(registry.repository("app"), Buffer.from("ok"));
      const answer = await client("GET", `app/blobs/${ok}`);
      expect(answer.status).to.equal(200);
      expect(answer.body.toString()).to.equal("ok");
      const warning = Buffer.from(String(answer.headers.warning), "latin1").toString("utf8");
      expect(warning).to.equal('299 - "Überholt ✓"');
      expect(answer.headers["x-latin"]).to.equal("\xe4");
    });

    it("hints that come before the answer", async () => {
      undo.defer(
        registry.on("GET blob", ({ response, next }) => {
          response.writeProcessing();
          response.writeEarlyHints({ link: "</x>; rel=preload" });
          return next();
        }),
      );
      const answer = await client("GET", path);
      expect(answer.status).to.equal(200);
      expect(answer.headers.link).to.equal(undefined);
    });
  });

  it("are asked for once more where a kept connection turns out to be closed", async () => {
    expect((await client("GET", path)).status).to.equal(200);
    const ports = new Set(registry.requests.map(({ remotePort }) => remotePort));
    undo.defer(
      registry.on(
        "* *",
        async ({ record, request, next }) => {
          // As a server does whose patience ends just when the next request is on its way.
          if (ports.has(record.remotePort)) request.socket.resetAndDestroy();
          else await next();
        },
        "before auth",
      ),
    );
    expect((await client("GET", path)).status).to.equal(200);
    expect((await client("HEAD", path)).status).to.equal(200);
  });

  describe("that change something, after a connection that was closed without a response", () => {
    const closedOn: string[] = [];
    const upload = async (): Promise<string> =>
      String((await client("POST", "app/blobs/uploads/")).headers.location);
    const requests = (path: string): readonly (readonly [string, string, string | undefined])[] => [
      ["POST", "app/blobs/uploads/", undefined],
      ["POST", `app/blobs/uploads/?mount=${digest}&from=app`, undefined],
      ["PATCH", path, undefined],
      ["PUT", `${path}&digest=${sha256(Buffer.alloc(0))}`, undefined],
      ["PUT", "app/manifests/again", "{}"],
      ["DELETE", "app/manifests/again", undefined],
    ];
    const closeAfter = (delayMs: number, isToClose: (port: number | undefined) => boolean) =>
      registry.on(
        "* *",
        async ({ record, request, next }) => {
          if (record.target.kind === "token" || !isToClose(record.remotePort)) return next();
          closedOn.push(`${record.method} ${record.remotePort}`);
          setTimeout(() => request.socket.resetAndDestroy(), delayMs);
          return undefined;
        },
        "before auth",
      );

    beforeEach(() => {
      closedOn.length = 0;
    });

    it("are sent once more where it was a kept one", async () => {
      for (const [index] of requests("").entries()) {
        const [method, path, body] = requests(await upload())[index] ?? ["", "", undefined];
        await client("PUT", "app/manifests/again", { body: "{}" });
        const ports = new Set(registry.requests.map(({ remotePort }) => remotePort));
        const stop = closeAfter(0, (port) => ports.has(port));
        const answer = await client(method, path, body === undefined ? {} : { body });
        stop();
        expect(answer.status, method + path).to.be.oneOf([201, 202, 204]);
        expect(closedOn.splice(0), method + path).to.have.length.above(0);
      }
    });

    it("are not where it was a new one, unless twice is as good as once", async () => {
      const keepNone = registry.on(
        "* *",
        ({ response, next }) => {
          response.shouldKeepAlive = false;
          return next();
        },
        "before auth",
      );
      undo.defer(keepNone);
      await client("GET", path); // the last response on a connection that was kept before
      for (const [index] of requests("").entries()) {
        const [method, path, body] = requests(await upload())[index] ?? ["", "", undefined];
        closedOn.length = 0;
        const stop = closeAfter(0, () => true);
        const answer = await client(method, path, body === undefined ? {} : { body });
        stop();
        expect(answer.status, method + path).to.equal(503);
        const isIdempotent = path.startsWith("app/manifests/");
        expect(closedOn, method + path).to.have.length(isIdempotent ? 2 : 1);
      }
    });

    it("are not where a kept one is closed long after it", async () => {
      await upload();
      undo.defer(closeAfter(2_500, () => true));
      expect((await client("POST", "app/blobs/uploads/")).status).to.equal(503);
      expect(closedOn).to.have.length(1);
    });
  });

  it("are asked for no more than twice", async () => {
    undo.defer(registry.on("* blob", ({ request }) => void request.socket.resetAndDestroy()));
    const answer = await client("GET", path);
    expect(answer.status).to.equal(503);
    expect(errorIn(answer).message).to.contain("it closed the connection");
    expect(seen()).to.have.length(2);
  });
});

const lowerCase = (headers: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));

/** A client's own connection is none of the registry's. */
const hiddenNames = Object.keys(lowerCase(oddHeaders.hidden)).filter(
  (name) => name !== "connection",
);
