import { expect } from "chai";
import type { RequestReport } from "../../../src/proxy/request-report.ts";
import { cleanup } from "../../support/cleanup.ts";
import { eventually } from "../../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob } from "../../support/fake-registry-content.ts";
import { corruptBlobs, truncateBlobs } from "../../support/hostile-downloads.ts";
import { noise } from "../../support/oci-image.ts";
import { oddRegistry } from "../../support/registries/odd-registries.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

describe("a registry whose content is odd", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const undo = cleanup();
  const reports: RequestReport[] = [];
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;

  before(async () => {
    registry = resources.add(await startFakeRegistry());
    const observer = {
      requestStarted: () => undefined,
      tokenNeeded: () => undefined,
      requestEnded: (report: RequestReport) => void reports.push(report),
    };
    proxy = resources.add(await startTestProxy({ observer, retryDelaysMs: [1, 1] }));
    proxy.connect("it", registry.url);
    client = clientOf(proxy, "it");
  });
  beforeEach(() => {
    reports.length = 0;
  });
  afterEach(undo.stop);
  after(resources.stop);

  const reported = () =>
    eventually(
      () => reports[0],
      () => "nothing is reported",
    );

  it(oddRegistry("wrong-content"), async () => {
    undo.defer(corruptBlobs(registry));
    for (const bytes of [1, 1_000, 64 * 1024]) {
      reports.length = 0;
      const digest = addBlob(registry.repository("app"), noise("small", bytes));
      const answer = await client("GET", `app/blobs/${digest}`);
      expect(answer.status, String(bytes)).to.equal(502);
      expect(errorIn(answer).message).to.equal(
        `the registry sent content that does not match ${digest}`,
      );
      expect(await reported()).to.include({ status: 502, upstreamStatus: 200 });
    }
    reports.length = 0;
    const digest = addBlob(registry.repository("app"), noise("large", 3_000_000));
    const answer = await client("GET", `app/blobs/${digest}`);
    expect(answer).to.include({ status: 200, complete: false });
    expect(await reported()).to.include({
      status: 502,
      upstreamStatus: 200,
      reason: `the registry sent content that does not match ${digest}`,
    });
    expect(proxy.log()).to.contain(`does not match ${digest}`);
  });

  it(`${oddRegistry("wrong-content")}; it comes in small pieces`, async () => {
    const content = noise("pieces", 40_000);
    const digest = addBlob(registry.repository("app"), content);
    let isRight = false;
    undo.defer(
      registry.on("GET blob", async ({ response }) => {
        const body = Buffer.from(content);
        if (!isRight) body[body.length - 1] = (body.at(-1) ?? 0) ^ 1;
        response.writeHead(200, { "content-length": body.length });
        for (let from = 0; from < body.length; from += 10_000) {
          response.write(body.subarray(from, from + 10_000));
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        response.end();
      }),
    );
    expect((await client("GET", `app/blobs/${digest}`)).status).to.equal(502);
    isRight = true;
    const answer = await client("GET", `app/blobs/${digest}`);
    expect(answer.body.equals(content)).to.equal(true);
  });

  it(oddRegistry("cut-before-begin"), async () => {
    const digest = addBlob(registry.repository("app"), noise("cut", 300_000));
    undo.defer(truncateBlobs(registry, 0));
    undo.defer(
      registry.on("GET tags", ({ response }) => {
        response.writeHead(200, { "content-length": 100 }).flushHeaders();
        setTimeout(() => response.destroy(), 50);
      }),
    );
    for (const path of [`app/blobs/${digest}`, "app/tags/list"]) {
      reports.length = 0;
      const answer = await client("GET", path);
      expect(answer.status, path).to.equal(503);
      expect(answer.headers["retry-after"]).to.match(/^\d+$/);
      expect(errorIn(answer).message).to.contain("ended early");
      expect(await reported()).to.include({ status: 503, upstreamStatus: 200 });
    }
  });

  it("is reported by its reason where a part of it has gone out", async () => {
    const digest = addBlob(registry.repository("app"), noise("cut", 3_000_000));
    undo.defer(truncateBlobs(registry, 0));
    undo.defer(truncateBlobs(registry, 1_000_000, { times: 1 }));
    const answer = await client("GET", `app/blobs/${digest}`);
    expect(answer).to.include({ status: 200, complete: false });
    expect(await reported()).to.include({ status: 503, upstreamStatus: 200 });
  });
});
