import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect } from "chai";
import type { Connector } from "../../src/connector/connector.ts";
import type { FoundConnector } from "../../src/connector/platform.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { connectorsPath, createConnectorFinder } from "../../src/kube/find-connector.ts";
import { type ObjectBounds, specOnly, tenantBounds } from "../../src/kube/object-bounds.ts";
import type { KubeObject } from "../../src/kube/object-store.ts";
import { createWatchedCache, type WatchedCache } from "../../src/kube/watched-cache.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeApiServer, type FakeObject, startFakeApiServer } from "./fake-api-server.ts";

const mebibyte = 1024 * 1024;

/** The options of Node that the image has (Containerfile). */
const imageOptions = ["--max-semi-space-size=2", "--v8-pool-size=1", "--heap-growing-percent=50"];

/** A Connector whose parameter `x`, which nobody reads, has so many bytes. */
const connectorOf = (name: string, bytes = 0, namespace = "team-a"): FakeObject => ({
  apiVersion: "connectors.alauda.io/v1alpha1",
  kind: "Connector",
  metadata: { name, namespace },
  spec: {
    connectorClassName: "oci",
    address: "https://harbor.example.com",
    ...(bytes === 0 ? {} : { params: [{ name: "x", value: "x".repeat(bytes) }] }),
  },
});

interface Watched {
  readonly cache: WatchedCache<KubeObject>;
  readonly find: (name: string, namespace?: string) => Promise<FoundConnector>;
}

describe("large Connectors", () => {
  const resources = cleanup();
  let server: FakeApiServer;

  beforeEach(async () => {
    server = resources.add(await startFakeApiServer());
  });
  afterEach(resources.stop);

  const watch = async (bounds: ObjectBounds = tenantBounds): Promise<Watched> => {
    const abort = new AbortController();
    resources.defer(() => abort.abort());
    const cache = createWatchedCache<KubeObject>({
      client: createApiClient({ access: server.access }),
      path: connectorsPath,
      bounds,
      keep: specOnly,
      log: () => undefined,
      signal: abort.signal,
      random: Math.random,
      timing: { initialRetryMs: 1, maxRetryMs: 20, stableMs: 0, relistMs: 0 },
    });
    const find = createConnectorFinder(cache);
    await cache.synced;
    await eventually(
      () => server.watches === 1,
      () => "nobody watches",
    );
    return { cache, find: (name, namespace = "team-a") => find({ namespace, name }) };
  };
  const reasonOf = (found: FoundConnector): string =>
    found.state === "invalid" ? found.reason : expect.fail(`it is ${found.state}`);
  const becomes = ({ find }: Watched, name: string, state: FoundConnector["state"]) =>
    eventually(
      async () => (await find(name)).state === state,
      () => `${name} never becomes ${state}`,
    );
  const pageSizes = (): string[] =>
    server.requests
      .filter(({ query }) => query.get("watch") !== "true")
      .map(({ query }) => query.get("limit") ?? "");

  it("are listed in pages that shrink, and are invalid each by itself", async () => {
    for (let number = 0; number < 70; number += 1) {
      server.put("connectors", connectorOf(`large-${number}`, mebibyte, "team-b"));
    }
    server.put("connectors", connectorOf("harbor"));
    const watched = await watch();
    expect((await watched.find("harbor")).state).to.equal("found");
    for (const name of ["large-0", "large-69"]) {
      expect(reasonOf(await watched.find(name, "team-b"))).to.match(
        /^metadata: found an object of 10\d{5} bytes, wanted at most 524288 bytes$/,
      );
    }
    expect(watched.cache.list("team-b")).to.have.length(70);
    expect(JSON.stringify(watched.cache.list()).length).to.be.below(100_000);
    expect(pageSizes()[0]).to.equal("500");
    expect(Math.min(...pageSizes().map(Number))).to.be.within(1, 3);
    expect(pageSizes().length).to.be.below(90);
  });

  it("larger than a page are known by their metadata", async () => {
    server.put("connectors", connectorOf("a"));
    server.put("connectors", connectorOf("huge", 9 * mebibyte));
    server.put("connectors", connectorOf("z"));
    const watched = await watch();
    for (const name of ["a", "z"]) expect((await watched.find(name)).state).to.equal("found");
    expect(reasonOf(await watched.find("huge"))).to.contain("too large");
  });

  it("of any depth are measured", async () => {
    const document = connectorOf("deep");
    const spec = document.spec as object;
    const metadata = { ...document.metadata, uid: "1", resourceVersion: "1" };
    server.intercept = ({ query }) => {
      if (query.get("watch") === "true") return undefined;
      // JSON.stringify of the fake API server does not bear it.
      const text = JSON.stringify({ ...document, metadata, spec: { ...spec, params: "DEEP" } });
      const nested = `[{"name":"x","value":${"[".repeat(10_000)}${"]".repeat(10_000)}}]`;
      const body = `{"metadata":{"resourceVersion":"100"},"items":[${text.replace('"DEEP"', nested)}]}`;
      return { status: 200, body };
    };
    const watched = await watch();
    expect((await watched.find("deep")).state).to.equal("found");
  });

  it("take little of the memory of a process that starts, however many there are", async function () {
    this.timeout(60_000);
    const measure = async (): Promise<Record<string, number>> => {
      const script = join(import.meta.dirname, "watch-process.ts");
      const argv = [...imageOptions, script, server.access.server.href];
      const env = { ...process.env, MALLOC_ARENA_MAX: "2", MALLOC_MMAP_THRESHOLD_: "131072" };
      const { stdout } = await promisify(execFile)(process.execPath, argv, { env });
      return JSON.parse(stdout) as Record<string, number>;
    };
    server.put("connectors", connectorOf("harbor"));
    const { maxRssBytes: alone = 0 } = await measure();
    for (let number = 0; number < 100; number += 1) {
      server.put("connectors", connectorOf(`large-${number}`, mebibyte, "team-b"));
      for (const size of [400, 200]) {
        server.put("connectors", connectorOf(`c${size}-${number}`, size * 1024, "team-b"));
      }
    }
    const { maxRssBytes: beside = 0, found, invalid } = await measure();
    expect(found).to.be.within(20, 41);
    expect(invalid).to.equal(301 - (found ?? 0));
    expect(beside / alone).to.be.below(3);
  });

  it("don't make pages small for ever", async () => {
    for (let number = 0; number < 12; number += 1) {
      server.put("connectors", connectorOf(`large-${number}`, mebibyte));
    }
    for (let number = 0; number < 3_000; number += 1) {
      server.put("connectors", connectorOf(`small-${number}`));
    }
    const watched = await watch();
    expect(watched.cache.list()).to.have.length(3_012);
    expect(pageSizes().length).to.be.below(60);
  });

  for (const [what, bytes] of [
    ["are read", mebibyte],
    ["are skimmed", 3 * mebibyte],
  ] as const) {
    it(`of a watch ${what}, and end nobody's watch`, async () => {
      const watched = await watch();
      const before = server.requests.length;
      server.put("connectors", connectorOf("large", bytes));
      server.put("connectors", connectorOf("harbor"));
      await becomes(watched, "harbor", "found");
      expect(reasonOf(await watched.find("large"))).to.match(/^metadata: found an object of \d{7}/);
      server.put("connectors", connectorOf("large"));
      await becomes(watched, "large", "found");
      server.put("connectors", connectorOf("large", bytes));
      await becomes(watched, "large", "invalid");
      server.remove("connectors", "large", "team-a");
      await becomes(watched, "large", "missing");
      expect(server.requests).to.have.length(before);
    });
  }

  it("share the space of their namespace, and get it when others go", async () => {
    const bounds = { maxObjectBytes: 200_000, maxNamespaceBytes: 500_000, maxNamesWithoutRoom: 2 };
    for (let number = 0; number < 8; number += 1) {
      server.put("connectors", connectorOf(`c${number}`, 120_000));
    }
    server.put("connectors", connectorOf("harbor", 120_000, "team-b"));
    const watched = await watch(bounds);
    const states = async (): Promise<string[]> =>
      Promise.all([0, 1, 2, 3, 4, 5, 6, 7].map(async (n) => (await watched.find(`c${n}`)).state));
    const kept = ["found", "found", "found", "found", "invalid", "invalid"];
    // Beyond so many names nothing is known, and it costs nothing.
    expect(await states()).to.deep.equal([...kept, "missing", "missing"]);
    expect((await watched.find("harbor", "team-b")).state).to.equal("found");
    expect(reasonOf(await watched.find("c4"))).to.match(
      /beside others of its namespace, 60\d{4} bytes together, wanted at most 500000 bytes in a/,
    );
    // One that is there may change.
    server.put("connectors", { ...connectorOf("c0", 120_000), changed: true });
    server.remove("connectors", "c1", "team-a");
    await becomes(watched, "c4", "found");
    expect((await watched.find("c5")).state).to.equal("invalid");
    expect((await watched.find("c6")).state).to.equal("invalid");
    expect((await watched.find("c7")).state).to.equal("missing");
    expect((await watched.find("c0")).state).to.equal("found");
  });

  it("and all others are held without what nobody reads", async () => {
    const { metadata, ...others } = connectorOf("harbor");
    const annotations = { "kubectl.kubernetes.io/last-applied-configuration": "{}", a: "b" };
    server.put("connectors", {
      ...others,
      metadata: { ...metadata, annotations, labels: { c: "d" } } as FakeObject["metadata"],
      status: { conditions: [] },
    });
    const { cache, find } = await watch();
    const found = await find("harbor");
    expect(found.state === "found" && (found.connector satisfies Connector).name).to.equal(
      "harbor",
    );
    const held = cache.get("harbor", "team-a");
    expect(held).not.to.have.property("status");
    expect(Object.keys(held?.metadata ?? {}).toSorted()).to.deep.equal([
      "generation",
      "name",
      "namespace",
      "resourceVersion",
      "uid",
    ]);
  });
});
