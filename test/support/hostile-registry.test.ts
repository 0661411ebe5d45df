import { expect } from "chai";
import { cleanup } from "./cleanup.ts";
import { eventually } from "./eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "./fake-registry.ts";
import { addBlob } from "./fake-registry-content.ts";
import {
  neverAnswer,
  oddHeaders,
  sendHugeHeaders,
  sendOddHeaders,
  startSilentServer,
} from "./hostile-answers.ts";
import { forbiddenRealms, garbageChallenges, tokenEndpoint, useRealm } from "./hostile-auth.ts";
import {
  breakChunks,
  corruptBlobs,
  lieAbout416,
  redirectForEver,
  resetDownloads,
  storeBlobsIn,
  truncateBlobs,
} from "./hostile-downloads.ts";
import { answerUploadsEarly, resetUploads, stallUploads } from "./hostile-uploads.ts";
import { noise } from "./oci-image.ts";
import { plainRequest } from "./plain-request.ts";
import { openRaw } from "./raw-request.ts";

describe("hostile registries", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const blob = noise("blob", 100_000);
  let registry: FakeRegistry;
  let url: string;

  beforeEach(async () => {
    registry = resources.add(await startFakeRegistry());
    url = `${registry.url}/v2/app/blobs/${addBlob(registry.repository("app"), blob)}`;
  });
  afterEach(resources.stop);

  for (const [name, misbehave] of Object.entries({ truncateBlobs, breakChunks, resetDownloads })) {
    it(`${name} once: the beginning of a blob, then all of it`, async () => {
      misbehave(registry, 50_000, { times: 1 });
      const first = await plainRequest(url);
      expect(first.complete).to.equal(false);
      expect(first.body.equals(blob.subarray(0, first.body.length))).to.equal(true);
      const second = await plainRequest(url);
      expect(second.complete).to.equal(true);
      expect(second.body.equals(blob)).to.equal(true);
    });
  }

  it("corruptBlobs: as many bytes, but others", async () => {
    corruptBlobs(registry);
    const { body, complete } = await plainRequest(url);
    expect({ length: body.length, complete }).to.deep.equal({
      length: blob.length,
      complete: true,
    });
    expect(body.equals(blob)).to.equal(false);
  });

  it("lieAbout416: a length that never comes", async () => {
    lieAbout416(registry, "close");
    const answer = await plainRequest(url, { headers: { range: "bytes=200000-" } });
    expect(answer).to.include({ status: 416, complete: false });
    expect(answer.headers["content-length"]).to.equal("100000");
  });

  it("redirectForEver, and storeBlobsIn a store that takes no Authorization", async () => {
    const undo = redirectForEver(registry);
    const { headers } = await plainRequest(url);
    expect(headers.location).to.match(/\?hop=1$/);
    undo();
    const storage = resources.add(await startFakeRegistry({ hostname: "127.0.0.2" }));
    storeBlobsIn(storage, registry);
    const location = (await plainRequest(url)).headers.location ?? "";
    expect((await plainRequest(location)).body.equals(blob)).to.equal(true);
    const twice = await plainRequest(location, { headers: { authorization: "Bearer x" } });
    expect(twice.status).to.equal(400);
    expect(storage.requests).to.have.length(2);
  });

  it("heads: odd ones, huge ones, none, and nothing behind them", async () => {
    sendOddHeaders(registry);
    sendHugeHeaders(registry);
    const odd = await plainRequest(url);
    for (const name of Object.keys({ ...oddHeaders.hidden, ...oddHeaders.kept })) {
      expect(odd.headers).to.have.property(name.toLowerCase());
    }
    expect(odd.rawHeaders.join(": ").length).to.be.greaterThan(21 * 1024);
    neverAnswer(registry, "GET blob", { bytes: 10 });
    expect(await plainRequest(url, { timeout: 500 })).to.include({ status: 200, complete: false });
    neverAnswer(registry, "GET blob");
    const silent = resources.add(await startSilentServer());
    for (const place of [url, `http://${silent.host}/`, `https://${silent.host}/`]) {
      const answer = await plainRequest(place, { timeout: 500 }).catch((error) => String(error));
      expect(answer).to.match(/no byte for 500 ms/);
    }
  });

  it("challenges that Node can send, one of each", async () => {
    registry.auth.mode = "bearer";
    const elsewhere = resources.add(await startFakeRegistry({ hostname: "127.0.0.2" }));
    for (const realm of forbiddenRealms(registry, elsewhere).values()) {
      useRealm(registry, realm);
      const { headers } = await plainRequest(url);
      expect(headers["www-authenticate"]).to.include(`realm="${realm}"`);
    }
    for (const challenge of garbageChallenges.values()) {
      registry.auth.challenge = () => challenge;
      expect((await plainRequest(url)).headers["www-authenticate"]).to.equal(challenge);
    }
  });

  it("token endpoints: endless, no JSON, late", async () => {
    const token = `${registry.url}/token`;
    const undo = tokenEndpoint.endless(registry);
    const connection = resources.add(await openRaw({ port: registry.port }));
    connection.send("GET /token HTTP/1.1\r\nHost: x\r\n\r\n");
    await eventually(
      () => connection.received().length > 1_000_000,
      () => "no endless answer",
    );
    undo();
    tokenEndpoint.notJson(registry, "the-secret");
    expect((await plainRequest(token)).body.toString()).to.match(/^the-secret/);
  });

  it("uploads: answered early, reset, or no longer read", async () => {
    const begin = async (): Promise<string> => {
      const begun = await plainRequest(`${registry.url}/v2/app/blobs/uploads/`, { method: "POST" });
      return registry.url + begun.headers.location;
    };
    const body = noise("upload", 20_000_000);
    const options = { method: "PATCH", body, timeout: 1000 };
    let undo = answerUploadsEarly(registry, 403);
    const early = await plainRequest(await begin(), options);
    expect(early.status).to.equal(403);
    expect(registry.requests.at(-1)?.bodyLength).to.equal(0);
    undo();
    undo = resetUploads(registry, 1_000_000);
    const reset = await plainRequest(await begin(), options).catch((error) => error.code);
    expect(reset).to.be.oneOf(["ECONNRESET", "EPIPE"]);
    undo();
    stallUploads(registry, 1_000_000);
    const stalled = await plainRequest(await begin(), options).catch((error) => String(error));
    expect(stalled).to.match(/no byte for/);
    expect(registry.requests.at(-1)?.bodyLength).to.be.within(1_000_000, 2_000_000);
  });
});
