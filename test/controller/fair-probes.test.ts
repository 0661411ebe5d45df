import { createServer, type Socket } from "node:net";
import { expect } from "chai";
import { property } from "../../src/connector/document.ts";
import { readConditions } from "../../src/controller/conditions.ts";
import { startController } from "../../src/controller/controller.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { createProbe } from "../../src/upstream/probe.ts";
import { createUpstreams } from "../../src/upstream/upstream.ts";
import { type FakeApiServer, startFakeApiServer } from "../kube/fake-api-server.ts";
import { recordedLog } from "../standalone/recorded-log.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { type FakeClock, fakeClock } from "./fake-clock.ts";
import { noIdentities } from "./sample-connector.ts";

const day = 24 * 60 * 60_000;

describe("the controller, beside a tenant whose registries never answer", function () {
  this.timeout(60_000);
  const resources = cleanup();
  let server: FakeApiServer;
  let clock: FakeClock;
  let registry: FakeRegistry;
  let log: ReturnType<typeof recordedLog>;
  /** A registry that accepts and never answers, by its connections. */
  let silent: { readonly url: string; readonly sockets: Set<Socket>; most: number };

  beforeEach(async () => {
    server = resources.add(await startFakeApiServer());
    registry = resources.add(await startFakeRegistry());
    clock = fakeClock();
    log = recordedLog();
    silent = await startSilentRegistry();
  });
  afterEach(resources.stop);

  async function startSilentRegistry(): Promise<typeof silent> {
    const sockets = new Set<Socket>();
    const state = { url: "", sockets, most: 0 };
    const listener = createServer((socket) => {
      sockets.add(socket.on("error", () => undefined));
      state.most = Math.max(state.most, sockets.size);
      socket.once("close", () => sockets.delete(socket));
    });
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    resources.defer(async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => listener.close(resolve));
    });
    state.url = `http://127.0.0.1:${property(listener.address(), "port")}`;
    return state;
  }

  function start(): void {
    const upstreams = createUpstreams(15_000);
    resources.defer(() => upstreams.destroy());
    resources.add(
      startController({
        client: createApiClient({ access: server.access, timeoutMs: 20_000 }),
        probe: createProbe(upstreams),
        identityLogins: noIdentities,
        names: {
          installNamespace: "connectors-system",
          clusterDomain: "cluster.local",
          proxyService: "connectors-proxy",
          proxyServiceAccount: "connectors-proxy",
          controllerServiceAccount: "connectors-controller",
          secretReaderClusterRole: "connectors-secret-reader",
        },
        instance: "controller-1",
        clock,
        random: () => 0,
        log: log.log,
        cacheTiming: { initialRetryMs: 1, maxRetryMs: 20 },
      }),
    );
  }

  const put = (namespace: string, name: string, address: string): void =>
    server.put("connectors", {
      apiVersion: "connectors.alauda.io/v1alpha1",
      kind: "Connector",
      metadata: { name, namespace },
      spec: { connectorClassName: "oci", address },
    });
  const ready = (namespace: string, name: string): string => {
    const conditions = readConditions(server.get("connectors", name, namespace));
    const { status, reason } = conditions.find(({ type }) => type === "Ready") ?? {};
    return `${status} ${reason}`;
  };
  const until = (holds: () => boolean, what: () => string): Promise<true> =>
    eventually(holds, () => `${what()}\n${log.lines.slice(-20).join("")}`, 20_000);
  const keysVersion = (): unknown =>
    property(
      server.get("secrets", "connectors-proxy-keys", "connectors-system")?.metadata,
      "resourceVersion",
    );
  const names = Array.from({ length: 200 }, (_, index) => `silent-${index}`);

  it("looks after another tenant's new Connector at once, and after the keys", async () => {
    for (const name of names) put("attacker", name, silent.url);
    start();
    await until(
      () => silent.sockets.size > 0,
      () => "no registry is probed",
    );
    // No time passes by the controller's clock, and no probe of the attacker's ends meanwhile.
    put("team-b", "harbor", registry.url);
    await until(
      () => ready("team-b", "harbor") === "True Ready",
      () => `the new Connector is ${ready("team-b", "harbor")}`,
    );
    expect(server.get("services", "c-harbor", "team-b")).to.not.equal(undefined);
    const before = keysVersion();
    expect(before).to.not.equal(undefined);
    clock.advance(3_650 * day);
    await until(
      () => keysVersion() !== before,
      () => "the keys are not rotated",
    );
    expect(silent.most).to.be.within(1, 2);
  });

  it("gives the tenant's own Connectors their Services and a status, which says that a probe is pending", async () => {
    for (const name of names) put("attacker", name, silent.url);
    start();
    const isServed = (name: string): boolean =>
      server.get("services", `c-${name}`, "attacker") !== undefined &&
      ready("attacker", name) === "Unknown Probing";
    await until(
      () => names.every(isServed),
      () => `${names.filter((name) => !isServed(name)).length} of them are not served`,
    );
    const conditions = readConditions(server.get("connectors", "silent-199", "attacker"));
    const liveness = conditions.find(({ type }) => type === "LivenessReady");
    expect(liveness?.message).to.contain("pending");
    expect(silent.most).to.be.within(1, 2);
  });
});
