import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import type { PlainResponse } from "../support/plain-request.ts";
import { clientOf, errorIn } from "./test-client.ts";
import { startTestProxy, type TestProxy } from "./test-proxy.ts";

const mebibyte = 1024 * 1024;

describe("the proxy's limits of what one tenant may ask for", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  /** Lets the registry answer. */
  let answer: () => void;
  let waiting: number;

  beforeEach(async () => {
    registry = resources.add(await startFakeRegistry());
    proxy = resources.add(
      await startTestProxy({
        limits: {
          maxRequestsPerSubject: 3,
          maxTunnelsPerSubject: 3,
          maxRequestsPerConnector: 4,
          maxHeldBytes: 2 * mebibyte,
        },
      }),
    );
    proxy.connect("harbor", registry.url);
    proxy.connect("other", registry.url);
    const gate = Promise.withResolvers<void>();
    answer = gate.resolve;
    waiting = 0;
    registry.on("GET tags", async ({ fail }) => {
      waiting += 1;
      await gate.promise;
      return fail(404, "NAME_UNKNOWN");
    });
  });
  afterEach(resources.stop);

  const list = (name: string, token: string): Promise<PlainResponse> =>
    clientOf(proxy, name, { token })("GET", "app/tags/list");
  const underWay = (count: number): Promise<unknown> =>
    eventually(
      () => waiting === count,
      () => `${waiting} requests are under way`,
    );

  it("hold for a volume, whichever connectors it uses, and not for its neighbours", async () => {
    const [greedy, modest] = [proxy.token("harbor", "other"), proxy.token("harbor")];
    const begun = [list("harbor", greedy), list("harbor", greedy), list("other", greedy)];
    await underWay(3);
    const refused = await list("other", greedy);
    expect(refused.status).to.equal(429);
    expect(refused.headers["retry-after"]).to.equal("2");
    expect(errorIn(refused)).to.include({ code: "TOOMANYREQUESTS" });
    begun.push(list("harbor", modest));
    await underWay(4);
    answer();
    for (const response of await Promise.all(begun)) expect(response.status).to.equal(404);
    expect((await list("other", greedy)).status).to.equal(404);
  });

  it("hold for a connector, whoever uses it", async () => {
    const tokens = [proxy.token("harbor"), proxy.token("harbor", "other"), proxy.token("harbor")];
    const begun = [0, 0, 1, 1].map((index) => list("harbor", tokens[index] ?? ""));
    await underWay(4);
    expect((await list("harbor", tokens[2] ?? "")).status).to.equal(429);
    begun.push(list("other", tokens[1] ?? ""));
    await underWay(5);
    answer();
    await Promise.all(begun);
  });

  it("count no request whose client went away", async () => {
    const token = proxy.token("harbor");
    const abort = new AbortController();
    const client = clientOf(proxy, "harbor", { token });
    const gone = [1, 2, 3].map(() =>
      client("GET", "app/tags/list", { signal: abort.signal }).catch(() => "gone"),
    );
    await underWay(3);
    abort.abort();
    await Promise.all(gone);
    answer();
    await eventually(
      async () => (await list("harbor", token)).status === 404,
      () => "they still count",
    );
  });

  it("hold for the manifests of all, and let them go", async () => {
    const push = (name: string, size: number): Promise<PlainResponse> =>
      clientOf(proxy, name)("PUT", "app/manifests/1", { body: Buffer.alloc(size, " ") });
    const gate = Promise.withResolvers<void>();
    let arrived = false;
    const stop = registry.on("PUT manifest", async ({ fail }) => {
      arrived = true;
      await gate.promise;
      return fail(400, "MANIFEST_INVALID");
    });
    const first = push("harbor", 1.5 * mebibyte);
    await eventually(
      () => arrived,
      () => "nothing has arrived",
    );
    expect((await push("other", mebibyte)).status).to.equal(429);
    gate.resolve();
    expect((await first).status).to.equal(400);
    expect((await push("other", mebibyte)).status).to.equal(400);
    stop();
  });
});
