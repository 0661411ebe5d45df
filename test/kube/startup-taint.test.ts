import { expect } from "chai";
import { createApiClient } from "../../src/kube/api-client.ts";
import { removeTaint } from "../../src/kube/startup-taint.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeApiServer, startFakeApiServer, statusOf } from "./fake-api-server.ts";

const ours = { key: "connectors.alauda.io/not-ready", effect: "NoSchedule" };
const other = { key: "example.com/gpu", effect: "NoSchedule" };

describe("the taint of a node", () => {
  const resources = cleanup();
  let server: FakeApiServer;
  let taints: readonly object[] | undefined;
  let version: number;
  /** How many patches find that somebody else was faster. */
  let conflicts: number;
  let patches: unknown[];

  before(async () => {
    server = resources.add(await startFakeApiServer());
    server.intercept = ({ method, path, body }) => {
      expect(path).to.equal("/api/v1/nodes/node-1");
      if (method === "GET") {
        const metadata = { name: "node-1", resourceVersion: `${version}` };
        return { status: 200, body: { metadata, spec: { taints } } };
      }
      patches.push(body);
      if (conflicts > 0) {
        conflicts -= 1;
        version += 1;
        return { status: 409, body: statusOf(409, "the object has been modified") };
      }
      return { status: 200, body: {} };
    };
  });
  beforeEach(() => {
    version = 7;
    conflicts = 0;
    patches = [];
  });
  after(resources.stop);

  const remove = (): Promise<boolean> =>
    removeTaint(createApiClient({ access: server.access }), "node-1", ours.key);

  it("is taken away, and the others stay", async () => {
    taints = [other, ours, { ...ours, effect: "NoExecute" }];
    expect(await remove()).to.equal(true);
    expect(patches).to.deep.equal([
      { metadata: { resourceVersion: "7" }, spec: { taints: [other] } },
    ]);
  });

  for (const [name, found] of [
    ["others", [other]],
    ["none", undefined],
  ] as const) {
    it(`is no matter where there are ${name}`, async () => {
      taints = found;
      expect(await remove()).to.equal(false);
      expect(patches).to.deep.equal([]);
    });
  }

  it("is looked at anew where somebody else was faster", async () => {
    taints = [ours];
    conflicts = 2;
    expect(await remove()).to.equal(true);
    expect(patches.at(-1)).to.deep.equal({
      metadata: { resourceVersion: "9" },
      spec: { taints: [] },
    });
  });

  it("is given up where somebody else is always faster", async () => {
    taints = [ours];
    conflicts = 100;
    expect(await remove().catch((error: Error) => error.message)).to.contain("modified");
    expect(patches).to.have.length(5);
  });
});
