import { createHash } from "node:crypto";
import { expect } from "chai";
import { createHashBudget } from "../../../src/proxy/relay/download.ts";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob } from "../../support/fake-registry-content.ts";
import {
  breakChunks,
  ignoreRanges,
  resetDownloads,
  storeBlobsIn,
  truncateBlobs,
} from "../../support/hostile-downloads.ts";
import { noise } from "../../support/oci-image.ts";
import { clientOf, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const credential = { username: "alice", password: "secret-of-alice" };
const retryDelaysMs = [1, 1, 1, 1];

/** Sends a part of a body once, and closes. */
function cutOnce(registry: FakeRegistry, body: Buffer, headers: Record<string, string> = {}) {
  let times = 0;
  return registry.on("GET blob", ({ response, next }) => {
    times += 1;
    if (times > 1) return next();
    response.writeHead(200, { "Content-Length": body.length, ...headers });
    response.write(body.subarray(0, 1_000_000), () => response.destroy());
    return undefined;
  });
}

describe("the download of a blob that is cut in the middle", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const undo = cleanup();
  let registry: FakeRegistry;
  let storage: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;
  const blob = noise("blob", 4_000_000);
  let digest: string;
  let path: string;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    storage = resources.add(await startFakeRegistry());
    proxy = resources.add(await startTestProxy({ bodyTimeoutMs: 300, retryDelaysMs }));
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

  const asked = (at = registry): (string | undefined)[] =>
    at.requests
      .filter(({ method, url }) => method === "GET" && /sha256/.test(url) && !/token/.test(url))
      .map(({ headers }) => headers.range);
  const expectWhole = async (): Promise<void> => {
    const answer = await client("GET", path);
    expect(answer.status).to.equal(200);
    expect(answer.headers["content-length"]).to.equal(String(blob.length));
    expect(answer.headers["content-range"]).to.equal(undefined);
    expect(answer.complete).to.equal(true);
    expect(answer.body.equals(blob)).to.equal(true);
  };
  const expectCut = async (): Promise<void> => {
    const answer = await client("GET", path);
    expect(answer.status).to.equal(200);
    expect(answer.complete).to.equal(false);
    expect(blob.subarray(0, answer.body.length).equals(answer.body)).to.equal(true);
  };
  const cutWithTag = (etag: string) => cutOnce(registry, blob, { ETag: etag });

  for (const [name, cut] of [
    ["by a close", truncateBlobs],
    ["by a reset", resetDownloads],
  ] as const) {
    it(`${name}, goes on where it was`, async () => {
      undo.defer(cut(registry, 1_500_000, { times: 1 }));
      await expectWhole();
      const [first, second, ...more] = asked();
      expect(first).to.equal(undefined);
      expect(second).to.match(/^bytes=\d+-$/);
      expect(more).to.deep.equal([]);
    });
  }

  it("by silence, goes on where it was", async () => {
    let times = 0;
    undo.defer(
      registry.on("GET blob", ({ response, next }) => {
        times += 1;
        if (times > 1) return next();
        response.writeHead(200, { "Content-Length": blob.length });
        response.write(blob.subarray(0, 1_000_000));
        return undefined;
      }),
    );
    await expectWhole();
  });

  it("again and again, goes on as long as it comes forward", async () => {
    undo.defer(truncateBlobs(registry, 1_100_000));
    await expectWhole();
    expect(asked()).to.have.lengthOf(4);
  });

  it("and has an ETag, goes on only with that", async () => {
    undo.defer(cutWithTag(`"${digest}"`));
    await expectWhole();
    const { headers } = registry.requests.at(-1) ?? {};
    expect(headers?.["if-range"]).to.equal(`"${digest}"`);
  });

  it("and has another ETag then, ends", async () => {
    undo.defer(cutWithTag('"another"'));
    await expectCut();
    expect(asked()).to.have.lengthOf(2);
  });

  it("and has a weak ETag, goes on without it", async () => {
    undo.defer(cutWithTag(`W/"${digest}"`));
    await expectWhole();
    expect(registry.requests.at(-1)?.headers["if-range"]).to.equal(undefined);
  });

  it("in a storage, goes on by way of the registry", async () => {
    undo.defer(storeBlobsIn(storage, registry));
    let times = 0;
    undo.defer(
      storage.on("GET /bucket/*", ({ response, next }) => {
        times += 1;
        if (times > 1) return next();
        response.writeHead(200, { "Content-Length": blob.length });
        response.write(blob.subarray(0, 1_000_000), () => response.destroy());
        return undefined;
      }),
    );
    await expectWhole();
    expect(asked()).to.have.lengthOf(2);
    expect(asked(storage)).to.have.lengthOf(2);
    expect(storage.requests.at(-1)?.headers).to.not.have.property("authorization");
  });

  it("goes on with another token where the first is over by then", async () => {
    undo.defer(cutWithTag(`"${digest}"`));
    undo.defer(
      registry.on("GET blob", ({ next }) => {
        registry.auth.tokens.clear();
        return next();
      }),
    );
    await expectWhole();
    const { length } = registry.requests.filter(({ target }) => target.kind === "token");
    expect(length).to.be.above(0);
  });

  it("goes on once a registry is there again that was busy, broken, or gone", async () => {
    let times = 0;
    undo.defer(
      registry.on("GET blob", ({ request, fail, next }) => {
        times += 1;
        if (times === 1) return fail(503, "UNAVAILABLE");
        if (times === 2) return fail(500, "UNKNOWN");
        if (times > 4) return next();
        request.socket.destroy();
        return undefined;
      }),
    );
    undo.defer(truncateBlobs(registry, 1_000_000, { times: 1 }));
    await expectWhole();
  });

  it("ends where it can't go on", async () => {
    undo.defer(ignoreRanges(registry));
    undo.defer(truncateBlobs(registry, 1_000_000, { times: 1 }));
    await expectCut();
    expect(asked()).to.have.lengthOf(2);
  });

  for (const [what, status, range] of [
    ["another part", 206, `bytes 5-3999999/4000000`],
    ["a part of something longer", 206, undefined],
    ["nothing of it any more", 404, undefined],
    ["no such range", 416, undefined],
  ] as const) {
    it(`ends where there is ${what}`, async () => {
      undo.defer(
        registry.on("GET blob", ({ request, send }) => {
          const from = Number(/\d+/.exec(request.headers.range ?? "")?.[0]);
          const longer = `bytes ${from}-4000000/4000001`;
          send(status, { "Content-Range": range ?? longer }, blob.subarray(from));
        }),
      );
      undo.defer(truncateBlobs(registry, 1_000_000, { times: 1 }));
      await expectCut();
      expect(asked()).to.have.lengthOf(2);
    });
  }

  it("ends after a few tries that bring nothing", async () => {
    undo.defer(truncateBlobs(registry, 0));
    undo.defer(truncateBlobs(registry, 1_000_000, { times: 1 }));
    await expectCut();
    expect(asked()).to.have.lengthOf(1 + retryDelaysMs.length);
  });

  it("ends where nobody knows how long it is", async () => {
    undo.defer(breakChunks(registry, 1_000_000));
    await expectCut();
    expect(asked()).to.deep.equal([undefined]);
  });

  it("ends where a part was asked for", async () => {
    undo.defer(truncateBlobs(registry, 1_000_000));
    const answer = await client("GET", path, { headers: { range: "bytes=100-" } });
    expect(answer.complete).to.equal(false);
    expect(asked()).to.have.lengthOf(1);
  });
});

describe("the download of what is asked for by its digest", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const undo = cleanup();
  let registry: FakeRegistry;
  let secure: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;
  const blob = noise("blob", 3_000_000);
  const manifest = Buffer.from('{"schemaVersion":2,"config":{},"layers":[]}');

  before(async () => {
    registry = resources.add(await startFakeRegistry());
    secure = resources.add(await startFakeRegistry({ tls: true }));
    proxy = resources.add(await startTestProxy({ retryDelaysMs }));
    proxy.connect("harbor", registry.url);
    proxy.connect("secure", secure.url, { caCertificates: [secure.ca ?? ""] });
    client = clientOf(proxy, "harbor");
  });
  beforeEach(() => {
    registry.requests.length = 0;
  });
  afterEach(undo.stop);
  after(resources.stop);

  const digestOf = (body: Buffer, algorithm = "sha256"): string =>
    `${algorithm}:${createHash(algorithm).update(body).digest("hex")}`;
  /** Answers with a body, whatever digest is asked for. */
  const answerWith = (body: Buffer, headers: Record<string, string> = {}): void => {
    for (const at of [registry, secure]) {
      for (const route of ["GET blob", "GET manifest"] as const) {
        undo.defer(
          at.on(route, ({ response }) => {
            const isChunked = headers["transfer-encoding"] !== undefined;
            const length = isChunked ? {} : { "content-length": body.length };
            response.writeHead(200, { ...headers, ...length }).end(body);
          }),
        );
      }
    }
  };

  for (const algorithm of ["sha256", "sha512"]) {
    for (const kind of ["blobs", "manifests"]) {
      for (const [how, headers] of [
        ["with its length", {}],
        ["in chunks", { "transfer-encoding": "chunked" }],
      ] as const) {
        const body = kind === "blobs" ? blob : manifest;

        it(`arrives whole where it is right: ${kind}, ${algorithm}, ${how}`, async () => {
          answerWith(body, headers);
          const answer = await client("GET", `app/${kind}/${digestOf(body, algorithm)}`);
          expect(answer.complete).to.equal(true);
          expect(answer.body.equals(body)).to.equal(true);
        });

        it(`never looks whole where it is wrong: ${kind}, ${algorithm}, ${how}`, async () => {
          const wrong = Buffer.from(body);
          wrong[1] = (wrong[1] ?? 0) ^ 1;
          answerWith(wrong, headers);
          const path = `app/${kind}/${digestOf(body, algorithm)}`;
          const answer = await client("GET", path);
          expect(answer.status === 200 && answer.complete).to.equal(false);
          if (kind === "manifests") expect(answer.status).to.equal(502);
          expect(proxy.log()).to.contain("does not match sha");
        });
      }
    }
  }

  it("never looks whole where only its last byte is wrong, over TLS on both sides", async () => {
    const wrong = Buffer.from(blob);
    wrong[wrong.length - 1] = (wrong.at(-1) ?? 0) ^ 1;
    answerWith(wrong);
    const answer = await clientOf(proxy, "secure", { scheme: "https" })(
      "GET",
      `app/blobs/${digestOf(blob)}`,
    );
    expect(answer.complete).to.equal(false);
  });

  it("never looks whole where it is empty, and should not be", async () => {
    answerWith(Buffer.alloc(0));
    const path = `app/blobs/${digestOf(blob)}`;
    const answer = await client("GET", path);
    expect(answer.status).to.equal(502);
    const empty = await client("GET", `app/blobs/${digestOf(Buffer.alloc(0))}`);
    expect(empty.complete).to.equal(true);
  });

  it("is checked over a cut, too", async () => {
    const wrong = Buffer.concat([blob.subarray(0, 2_000_000), noise("other", 1_000_000)]);
    for (const [second, isRight] of [
      [blob, true],
      [wrong, false],
    ] as const) {
      const away = [
        registry.on("GET blob", ({ request, send }) => {
          const from = Number(/\d+/.exec(request.headers.range ?? "")?.[0]);
          const range = `bytes ${from}-${blob.length - 1}/${blob.length}`;
          send(206, { "Content-Range": range }, second.subarray(from));
        }),
        cutOnce(registry, blob),
      ];
      const answer = await client("GET", `app/blobs/${digestOf(blob)}`);
      expect(answer.complete).to.equal(isRight);
      for (const undoing of away) undoing();
    }
    expect(registry.requests).to.have.lengthOf(4);
  });

  it("is not checked where it is a part, in a coding, or named by a tag", async () => {
    const path = `app/blobs/${digestOf(manifest)}`;
    undo.defer(
      registry.on("GET blob", ({ send }) =>
        send(206, { "Content-Range": "bytes 0-1/43" }, Buffer.from("xx")),
      ),
    );
    const part = await client("GET", path, { headers: { range: "bytes=0-1" } });
    expect(part.complete).to.equal(true);
    answerWith(Buffer.from("coded"), { "content-encoding": "gzip" });
    expect((await client("GET", path)).body.toString()).to.equal("coded");
    answerWith(Buffer.from("tagged"));
    expect((await client("GET", "app/manifests/latest")).body.toString()).to.equal("tagged");
  });
});

describe("what may be hashed", () => {
  it("is so much at once, and more as time passes, up to that", () => {
    let now = 5000;
    const budget = createHashBudget(() => now, { burstBytes: 100, bytesPerSecond: 10 });
    expect([budget.take(60), budget.take(40), budget.take(1)]).to.deep.equal([true, true, false]);
    now += 1000;
    expect([budget.take(11), budget.take(10), budget.take(1)]).to.deep.equal([false, true, false]);
    now += 1_000_000;
    expect([budget.take(101), budget.take(100), budget.take(1)]).to.deep.equal([
      false,
      true,
      false,
    ]);
  });
});
