import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob } from "../../support/fake-registry-content.ts";
import { clientOf, errorIn } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

describe("the proxy's response where a registry shows what it was sent", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    proxy = resources.add(await startTestProxy());
    proxy.connect("harbor", registry.url, {
      credential: { username: "alice", password: "secret-of-alice" },
    });
  });
  after(resources.stop);

  /** What the registry was last sent, without the scheme. */
  const sent = (): string =>
    String(registry.requests.at(-1)?.headers.authorization).replace("Bearer ", "");

  it("in a header, is not repeated", async () => {
    const digest = addBlob(registry.repository("app"), Buffer.from("blob"));
    const stop = registry.on("GET blob", ({ request, response, next }) => {
      response.setHeader("X-Echo", String(request.headers.authorization));
      return next();
    });
    const answer = await clientOf(proxy, "harbor")("GET", `app/blobs/${digest}`);
    stop();
    expect(answer.status).to.equal(200);
    expect(sent()).to.match(/^token-/);
    expect(JSON.stringify(answer.rawHeaders)).to.not.contain(sent());
  });

  it("in an error, is not repeated, and said", async () => {
    const stop = registry.on("GET tags", ({ request, response }) => {
      response.writeHead(500).end(`failed with ${request.headers.authorization}`);
    });
    const answer = await clientOf(proxy, "harbor")("GET", "app/tags/list");
    stop();
    expect(answer.status).to.equal(502);
    expect(errorIn(answer).message).to.contain("credential");
    expect(answer.body.toString()).to.not.contain(sent());
  });
});
