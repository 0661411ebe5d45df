import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob } from "../../support/fake-registry-content.ts";
import { redirectBlobs } from "../../support/hostile-downloads.ts";
import { noise } from "../../support/oci-image.ts";
import type { PlainResponse } from "../../support/plain-request.ts";
import { oddRegistry } from "../../support/registries/odd-registries.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
import { startTestProxy } from "../test-proxy.ts";

describe("what the storage of a registry refuses", function () {
  this.timeout(20_000);
  const resources = cleanup();
  const undo = cleanup();
  let registry: FakeRegistry;
  let storage: FakeRegistry;
  let client: TestClient;
  let path: string;

  before(async () => {
    registry = resources.add(await startFakeRegistry());
    storage = resources.add(await startFakeRegistry()); // another port is another origin
    const proxy = resources.add(await startTestProxy());
    proxy.connect("harbor", registry.url);
    client = clientOf(proxy, "harbor");
    path = `app/blobs/${addBlob(registry.repository("app"), noise("blob", 500_000))}`;
  });
  beforeEach(() => {
    storage.requests.length = 0;
  });
  afterEach(undo.stop);
  after(resources.stop);

  /** The answer to a GET of a blob whose storage refuses it; that to a HEAD has the same status. */
  async function refusedBy(status: number, range: string | undefined): Promise<PlainResponse> {
    undo.defer(redirectBlobs(registry, () => `${storage.url}/x?sig=secret-signature`));
    const body = Buffer.from("<Error>StringToSign: secret-signature</Error>");
    const sent = {
      "Content-Type": "application/xml",
      "Retry-After": "70",
      "Content-Range": "bytes */500000",
      "X-Amz-Id-2": "x",
    };
    undo.defer(storage.on("* /x", ({ send }) => send(status, sent, body)));
    const headers = range === undefined ? {} : { range };
    const answer = await client("GET", path, { headers });
    const head = await client("HEAD", path, { headers });
    expect(head.status).to.equal(answer.status);
    for (const one of [answer, head]) {
      expect(one.headers).to.not.have.any.keys("www-authenticate", "x-amz-id-2");
      expect(one.headers["content-type"]).to.equal("application/json");
      expect(one.rawHeaders.join() + one.body).to.not.contain("secret-signature");
    }
    expect(storage.requests).to.have.length(2);
    return answer;
  }

  const whole = undefined;
  const ranges = "bytes=0-1,5-6,9-10";
  const passedOn = [
    ["BLOB_UNKNOWN", [404, 410], [whole, ranges]],
    ["TOOMANYREQUESTS", [429], [whole, ranges]],
    ["UNAVAILABLE", [408, 503], [whole, ranges]],
    ["UNSUPPORTED", [405, 412, 416], [whole, ranges]],
  ] as const;
  for (const [code, statuses, requested] of passedOn) {
    for (const [status, range] of statuses.flatMap((one) =>
      requested.map((to) => [one, to] as const),
    )) {
      it(`${status} to ${range ?? "a request for all"} is ${status} to the client`, async () => {
        const answer = await refusedBy(status, range);
        expect(answer.status).to.equal(status);
        expect(errorIn(answer).code).to.equal(code);
        expect(answer.headers).to.include({
          "content-range": "bytes */500000",
          "retry-after": "70",
        });
      });
    }
  }

  it(oddRegistry("many-ranges"), async () => {
    for (const status of [400, 413, 414, 416, 431, 501]) {
      storage.requests.length = 0;
      const answer = await refusedBy(status, ranges);
      await undo.stop();
      expect(answer.status).to.equal(status);
      expect(errorIn(answer).code).to.equal("UNSUPPORTED");
      expect(answer.headers["content-range"]).to.equal("bytes */500000");
    }
  });

  const hidden = [
    [whole, [400, 401, 403, 413, 414, 431, 500, 501]],
    [ranges, [401, 403, 500]],
  ] as const;
  for (const [range, statuses] of hidden) {
    for (const status of statuses) {
      it(`${status} to ${range ?? "a request for all"} is 502 to the client`, async () => {
        const answer = await refusedBy(status, range);
        expect(answer.status).to.equal(502);
        expect(errorIn(answer).message).to.contain(`answered ${status}`);
        expect(answer.headers).to.not.have.any.keys("content-range", "retry-after");
      });
    }
  }

  it("of another registry keeps the code of its error", async () => {
    undo.defer(
      registry.on("* manifest", ({ path: asked, send }) =>
        send(307, { Location: storage.url + asked }),
      ),
    );
    undo.defer(storage.on("* manifest", ({ send }) => send(404, {}, Buffer.from("gone"))));
    expect(errorIn(await client("GET", "app/manifests/none")).code).to.equal("MANIFEST_UNKNOWN");
    undo.defer(storage.on("* manifest", ({ fail }) => fail(404, "NAME_UNKNOWN")));
    expect(errorIn(await client("GET", "app/manifests/none")).code).to.equal("NAME_UNKNOWN");
  });
});
