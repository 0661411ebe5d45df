import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addBlob } from "../support/fake-registry-content.ts";
import {
  breakChunks,
  ignoreRanges,
  resetDownloads,
  storeBlobsIn,
  truncateBlobs,
} from "../support/hostile-downloads.ts";
import { noise } from "../support/oci-image.ts";
import { clientOf, type TestClient } from "./test-client.ts";
import { startTestProxy, type TestProxy } from "./test-proxy.ts";

const credential = { username: "alice", password: "secret-of-alice" };
const waits = [1, 1, 1, 1];

describe("a blob that is cut in the middle", function () {
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
    proxy = resources.add(await startTestProxy({ bodyTimeout: 300, waits }));
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
  /** Sends a part of the blob with its ETag, and closes. */
  const cutWithTag = (etag: string, bytes = 1_000_000) => {
    let times = 0;
    return registry.on("GET blob", ({ response, next }) => {
      times += 1;
      if (times > 1) return next();
      response.writeHead(200, { "Content-Length": blob.length, ETag: etag });
      response.write(blob.subarray(0, bytes), () => response.destroy());
      return undefined;
    });
  };

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
    expect(asked()).to.have.lengthOf(1 + waits.length);
  });

  it("ends where nobody knows how long it is", async () => {
    undo.defer(breakChunks(registry, 1_000_000));
    await expectCut();
    expect(asked()).to.deep.equal([undefined, undefined]); // the second one by way of the ordinary client
  });

  it("ends where a part was asked for", async () => {
    undo.defer(truncateBlobs(registry, 1_000_000));
    const answer = await client("GET", path, { headers: { range: "bytes=100-" } });
    expect(answer.complete).to.equal(false);
    expect(asked()).to.have.lengthOf(1);
  });
});
