import { expect } from "chai";
import { Unavailable } from "../../src/connector/platform.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { connectorsPath, createConnectorFinder } from "../../src/kube/find-connector.ts";
import type { KubeObject } from "../../src/kube/object-store.ts";
import {
  type CacheTiming,
  createWatchedCache,
  type WatchedCache,
} from "../../src/kube/watched-cache.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeApiServer, startFakeApiServer, statusOf } from "./fake-api-server.ts";

const quick: CacheTiming = {
  initialRetryMs: 1,
  maxRetryMs: 20,
  watchMs: 60_000,
  graceMs: 60_000,
  stableMs: 60_000,
  relistMs: 0,
};

interface Watched {
  readonly cache: WatchedCache<KubeObject>;
  readonly logged: readonly string[];
  readonly changes: readonly string[];
}

describe("createWatchedCache()", () => {
  const resources = cleanup();
  let server: FakeApiServer;

  beforeEach(async () => {
    server = resources.add(await startFakeApiServer());
    server.put("connectors", { metadata: { name: "a", namespace: "ns" } });
  });
  afterEach(resources.stop);

  const watch = (timing: Partial<CacheTiming> = {}, timeoutMs = 5_000): Watched => {
    const abort = new AbortController();
    resources.defer(() => abort.abort());
    const logged: string[] = [];
    const changes: string[] = [];
    const cache = createWatchedCache({
      client: createApiClient({ access: server.access, timeoutMs }),
      path: connectorsPath,
      log: (_level, message) => logged.push(message),
      signal: abort.signal,
      random: Math.random,
      timing: { ...quick, ...timing },
    });
    cache.onChange(({ name, object }) => changes.push(object === undefined ? `-${name}` : name));
    return { cache, logged, changes };
  };
  const names = ({ cache }: Watched): string[] => cache.list().map(({ metadata }) => metadata.name);
  const until = (holds: () => boolean, what: string): Promise<true> =>
    eventually(
      () => holds(),
      () => what,
    );
  const shows = (watched: Watched, ...expected: string[]): Promise<true> =>
    until(() => names(watched).join() === expected.join(), `it shows ${names(watched).join()}`);
  const isWatched = (): Promise<true> => until(() => server.watches === 1, "nobody watches");
  const lists = (): number =>
    server.requests.filter(({ query }) => query.get("watch") !== "true").length;

  it("takes up what is there, comes, changes and goes", async () => {
    const watched = watch();
    await watched.cache.synced;
    expect(names(watched)).to.deep.equal(["a"]);
    await isWatched();
    server.put("connectors", { metadata: { name: "b", namespace: "ns" } });
    server.put("connectors", { metadata: { name: "a", namespace: "ns" }, changed: true });
    await until(() => watched.changes.length === 3, "changes are missing");
    expect(watched.cache.get("a", "ns")).to.have.property("changed", true);
    server.remove("connectors", "a", "ns");
    await shows(watched, "b");
    expect(watched.changes).to.deep.equal(["a", "b", "a", "-a"]);
    expect(watched.cache.list("other")).to.deep.equal([]);
    expect(watched.cache.get("b", "ns")?.metadata).not.to.have.property("managedFields");
  });

  it("lists in pages", async () => {
    for (let number = 0; number < 1001; number += 1) {
      server.put("connectors", { metadata: { name: `c${number}`, namespace: "ns" } });
    }
    const watched = watch();
    await watched.cache.synced;
    expect(names(watched)).to.have.length(1002);
    expect(lists()).to.equal(3);
  });

  it("is not ready before its first list, however often that fails", async () => {
    let failures = 0;
    server.intercept = () => {
      failures += 1;
      return failures < 5 ? { status: 500, body: statusOf(500, "etcd is away") } : undefined;
    };
    const watched = watch();
    const find = createConnectorFinder(watched.cache);
    await until(() => failures > 1, "nobody asks");
    expect(watched.cache.ready).to.equal(false);
    expect(watched.cache.staleReason).to.contain("etcd is away");
    const error = await find({ namespace: "ns", name: "a" }).catch((e: unknown) => e);
    expect(error).to.be.instanceOf(Unavailable);
    expect(error).to.have.property("message").that.contains("etcd is away");
    await watched.cache.synced;
    await until(() => watched.cache.staleReason === undefined, "there is still trouble");
    expect(names(watched)).to.deep.equal(["a"]);
    expect(watched.logged).to.deep.equal(["watch failed, retrying", "watch established"]);
  });

  it("outlives a list that is forbidden, missing, no list, no JSON, or never answered", async () => {
    const answers = [
      { status: 403, body: statusOf(403, "connectors is forbidden") },
      { status: 404, body: "404 page not found" },
      { status: 200, body: { kind: "Status" } },
      { status: 200, body: "<html>" },
      { status: 401, body: statusOf(401, "Unauthorized") },
      { status: 429, body: statusOf(429, "too many requests") },
      "cut",
      "silence",
    ] as const;
    const left = [...answers];
    server.intercept = () => left.shift();
    const watched = watch({}, 100);
    await watched.cache.synced;
    expect(names(watched)).to.deep.equal(["a"]);
    expect(left).to.deep.equal([]);
  });

  it("goes on where it was when a watch ends as agreed", async () => {
    const watched = watch({ stableMs: 0 });
    await isWatched();
    server.bookmark();
    server.endWatches();
    server.put("connectors", { metadata: { name: "b", namespace: "ns" } });
    await shows(watched, "a", "b");
    expect(lists()).to.equal(1);
    expect(watched.logged).to.deep.equal(["watch established"]);
  });

  it("lists anew when a watch is cut, and tells of what went meanwhile", async () => {
    const watched = watch();
    await isWatched();
    server.intercept = ({ query }) => (query.has("watch") ? "cut" : undefined);
    server.cut();
    server.put("connectors", { metadata: { name: "b", namespace: "ns" } });
    server.remove("connectors", "a", "ns");
    await shows(watched, "b");
    expect(watched.cache.staleReason).to.be.a("string");
    server.intercept = undefined;
    await isWatched();
    await until(() => watched.cache.staleReason === undefined, "there is still trouble");
    expect(watched.changes).to.deep.equal(["a", "-a", "b"]);
  });

  it("lists anew, without a word, when its past is gone", async () => {
    const watched = watch();
    await isWatched();
    server.compact();
    server.remove("connectors", "a", "ns");
    server.compact();
    server.endWatches();
    await shows(watched);
    expect(watched.logged.filter((message) => message !== "watch established")).to.deep.equal([]);
  });

  it("lists anew when a watch sends an error, or what is no event", async () => {
    const events = [
      { type: "ERROR", object: statusOf(500, "internal") },
      { type: "ADDED", object: { metadata: {} } },
      "no event",
    ];
    const total = events.length;
    server.intercept = ({ query }) =>
      query.has("watch") && events.length > 0 ? { status: 200, body: events.shift() } : undefined;
    const watched = watch();
    await isWatched();
    expect(lists()).to.equal(1 + total);
    expect(names(watched)).to.deep.equal(["a"]);
  });

  it("does not wait for ever for a watch that is silent", async () => {
    const watched = watch({ watchMs: 20, graceMs: 20 });
    await until(() => lists() > 2, "a silent watch is never given up");
    expect(names(watched)).to.deep.equal(["a"]);
    expect(watched.changes).to.deep.equal(["a"]);
    expect(watched.logged).to.contain("watch failed, retrying");
  });

  it("does not wait for ever for a watch that never begins", async () => {
    server.intercept = ({ query }) => (query.has("watch") ? "silence" : undefined);
    watch({}, 50);
    await until(() => lists() > 2, "a watch that never begins is never given up");
  });

  it("keeps what it knows while the API server is away, and finds it again", async () => {
    const watched = watch();
    const find = createConnectorFinder(watched.cache);
    await isWatched();
    await server.goAway();
    await until(
      () => watched.cache.staleReason?.includes("ECONNREFUSED") === true,
      "it is not away",
    );
    expect(watched.cache.ready).to.equal(true);
    expect((await find({ namespace: "ns", name: "a" })).state).to.equal("invalid");
    expect((await find({ namespace: "ns", name: "b" })).state).to.equal("missing");
    server.put("connectors", { metadata: { name: "b", namespace: "ns" } });
    await server.comeBack();
    await shows(watched, "a", "b");
    await until(() => watched.cache.staleReason === undefined, "there is still trouble");
    // However often it was tried: the connection was cut, then refused.
    const cant = "watch failed, retrying";
    expect(watched.logged).to.deep.equal(["watch established", cant, cant, "watch established"]);
  });

  it("ends with its signal", async () => {
    const abort = new AbortController();
    const cache = createWatchedCache({
      client: createApiClient({ access: server.access }),
      path: connectorsPath,
      log: () => {},
      signal: abort.signal,
      random: Math.random,
    });
    await cache.synced;
    await isWatched();
    abort.abort();
    await until(() => server.watches === 0, "it still watches");
    const asked = server.requests.length;
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(server.requests).to.have.length(asked);
  });
});
