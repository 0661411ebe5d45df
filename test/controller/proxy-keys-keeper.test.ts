import { randomBytes } from "node:crypto";
import { expect } from "chai";
import fc from "fast-check";
import { createAuthority } from "../../src/certificate-authority.ts";
import { property } from "../../src/connector/document.ts";
import { openingKeys, type ProxyKeys, parseProxyKeys } from "../../src/connector/proxy-keys.ts";
import {
  createProxyKeysKeeper,
  type KeepProxyKeys,
  type ProxyKeysKeeperOptions,
} from "../../src/controller/proxy-keys-keeper.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { hasStatus } from "../../src/kube/api-error.ts";
import type { KubeObject } from "../../src/kube/object-store.ts";
import { type FakeApiServer, startFakeApiServer } from "../kube/fake-api-server.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeClock, fakeClock } from "./fake-clock.ts";

const day = 24 * 60 * 60_000;
const namespace = "connectors-system";
const secretName = "connectors-proxy-keys";
const configMapName = "connectors-proxy-ca";

describe("createProxyKeysKeeper()", function () {
  this.timeout(60_000);
  const resources = cleanup();
  let server: FakeApiServer;
  let clock: FakeClock;
  let logged: string[];
  let keep: KeepProxyKeys;

  beforeEach(async () => {
    server = resources.add(await startFakeApiServer());
    clock = fakeClock();
    logged = [];
    keep = keeper();
  });
  afterEach(resources.stop);

  /** @param seen what the caches hold, the present unless given */
  const keeper = (seen: Partial<ProxyKeysKeeperOptions> = {}): KeepProxyKeys =>
    createProxyKeysKeeper({
      client: createApiClient({ access: server.access }),
      installNamespace: namespace,
      secrets: { get: (name, of) => server.get("secrets", name, of) },
      configMaps: { get: (name, of) => server.get("configmaps", name, of) },
      createKeys: async () => ({
        authority: await createAuthority("oci-connector", new Date(clock.now())),
        sealKey: randomBytes(32),
      }),
      now: clock.now,
      timing: { overlapMs: day, renewBeforeMs: 365 * day },
      log: (_level, message, { reason = "" } = {}) => logged.push(`${message} ${reason}`.trim()),
      ...seen,
    });
  const keys = (): ProxyKeys => {
    const parsed = parseProxyKeys(server.get("secrets", secretName, namespace));
    return parsed.ok ? parsed.value : expect.fail(parsed.problems[0]?.path ?? "");
  };
  const bundle = (): string =>
    String(
      property(property(server.get("configmaps", configMapName, namespace), "data"), "ca.crt"),
    );
  const published = (): { readonly since: unknown } => {
    const { metadata } = server.get("configmaps", configMapName, namespace) ?? {};
    return { since: property(property(metadata, "annotations"), "connectors.alauda.io/since") };
  };
  /** Caches that hold the present from now on. */
  const snapshot = () => {
    const [secret, configMap] = [
      server.get("secrets", secretName, namespace),
      server.get("configmaps", configMapName, namespace),
    ];
    return { secrets: { get: () => secret }, configMaps: { get: () => configMap } };
  };
  const annotate = (annotations: Readonly<Record<string, string>>): void => {
    const secret = server.get("secrets", secretName, namespace);
    const metadata = { name: secretName, ...secret?.metadata, annotations };
    server.put("secrets", { ...secret, metadata });
  };
  /** Takes steps until there is nothing to do. */
  const settle = async (): Promise<void> => {
    for (let steps = 0; (await keep()) === 30_000; steps += 1) expect(steps).to.be.below(5);
  };
  const writes = (): number => server.requests.filter(({ method }) => method !== "GET").length;

  it("makes keys once, and publishes the certificate", async () => {
    await settle();
    const { authority, sealKey, next, previous } = keys();
    expect(bundle()).to.equal(authority.certificate);
    expect([sealKey.length, next, previous]).to.deep.equal([32, undefined, undefined]);
    const before = writes();
    expect(before).to.equal(2);
    expect(await keep()).to.equal(60 * 60_000);
    expect(writes()).to.equal(before);
    expect(server.get("secrets", secretName, namespace)).to.have.nested.property("metadata.labels");
  });

  it("makes one set of keys where two replicas make some at once", async () => {
    const nothing = { secrets: { get: () => undefined }, configMaps: { get: () => undefined } };
    await Promise.all([keeper(nothing)(), keeper(nothing)(), keeper(nothing)()]);
    const { authority } = keys();
    await settle();
    expect(keys().authority).to.deep.equal(authority);
    expect(bundle()).to.equal(authority.certificate);
    expect(logged.filter((line) => line === "created the proxies' keys")).to.have.length(1);
  });

  it("does not overwrite what another replica has done meanwhile", async () => {
    await settle();
    annotate({ "connectors.alauda.io/rotate": "today" });
    const before = snapshot();
    await keep();
    const { next } = keys();
    expect(await keeper(before)().catch((error: unknown) => error)).to.include({ status: 409 });
    expect(keys().next).to.deep.equal(next);
    const unpublished = snapshot();
    await keep();
    const { since } = published();
    clock.advance(1000);
    const error = await keeper(unpublished)().catch((e: unknown) => e);
    expect(error).to.include({ status: 409 });
    expect(published().since).to.equal(since);
  });

  it("rotates all keys when it is asked to, and old ones are trusted meanwhile", async () => {
    await settle();
    const old = keys();
    annotate({ "connectors.alauda.io/rotate": "today" });
    await settle();
    const { next } = keys();
    expect(keys().authority).to.deep.equal(old.authority);
    expect(bundle()).to.equal(old.authority.certificate + next?.authority.certificate);
    expect(openingKeys(keys())).to.deep.equal([old.sealKey, next?.sealKey]);
    clock.advance(day - 1000);
    await settle();
    expect(keys().next).to.deep.equal(next);
    clock.advance(1000);
    await settle();
    expect(keys().authority).to.deep.equal(next?.authority);
    expect(keys().sealKey).to.deep.equal(next?.sealKey);
    expect(bundle()).to.equal(`${next?.authority.certificate}${old.authority.certificate}`);
    clock.advance(day);
    await settle();
    expect(keys()).to.deep.equal({ ...next, next: undefined, previous: undefined });
    expect(bundle()).to.equal(next?.authority.certificate);
    clock.advance(10 * day);
    await settle();
    expect(keys().authority).to.deep.equal(next?.authority);
    expect(server.get("secrets", secretName, namespace)).to.have.nested.property(
      "metadata.annotations.connectors\\.alauda\\.io/rotated",
      "today",
    );
  });

  it("rotates again for what was asked for in the middle of a rotation", async () => {
    await settle();
    const introductions = () => logged.filter((line) => line.endsWith("introduce")).length;
    for (const value of ["one", "two"]) {
      annotate({ "connectors.alauda.io/rotate": value, "connectors.alauda.io/rotated": "zero" });
      await settle();
      expect(introductions()).to.equal(1);
    }
    for (const steps of [1, 2, 3, 4, 5]) {
      clock.advance(day);
      await settle();
      expect(introductions()).to.equal(steps === 1 ? 1 : 2);
    }
    expect(keys().next).to.equal(undefined);
  });

  it("replaces an authority that is about to expire", async () => {
    await settle();
    const old = keys();
    clock.advance(9 * 365 * day);
    for (let days = 0; days < 3; days += 1) {
      await settle();
      clock.advance(day);
    }
    await settle();
    expect(keys().authority.certificate).not.to.equal(old.authority.certificate);
    expect(bundle()).to.equal(keys().authority.certificate);
  });

  it("puts a ConfigMap back that was deleted, or changed", async () => {
    await settle();
    server.remove("configmaps", configMapName, namespace);
    await settle();
    expect(bundle()).to.equal(keys().authority.certificate);
    server.put("configmaps", { metadata: { name: configMapName, namespace }, data: {} });
    await settle();
    expect(bundle()).to.equal(keys().authority.certificate);
  });

  it("makes new keys where the Secret was deleted", async () => {
    await settle();
    const { authority } = keys();
    server.remove("secrets", secretName, namespace);
    await settle();
    expect(keys().authority).not.to.deep.equal(authority);
    expect(bundle()).to.equal(keys().authority.certificate);
  });

  it("leaves a damaged Secret as it is, and says what to do", async () => {
    await settle();
    const secret = server.get("secrets", secretName, namespace) as KubeObject & { data: object };
    server.put("secrets", { ...secret, data: { ...secret.data, "seal.key": "c2hvcnQ=" } });
    const before = writes();
    const error = await keep().catch(String);
    expect(error).to.contain("seal.key: found 5 bytes, wanted 32 bytes").and.contain("delete it");
    expect(error).not.to.contain("c2hvcnQ=").and.not.contain("short");
    expect(writes()).to.equal(before);
  });

  /**
   * Whoever has read the Secret, or the ConfigMap, within the overlap: a proxy with the former has to
   * be trusted by a client with the latter. It does not matter who took which step, and who ended in
   * the middle of it, or saw the world as it was a while ago.
   */
  it("never lets a client meet a proxy that it does not trust", async () => {
    const action = fc.record({
      hours: fc.constantFrom(0, 0, 1, 11, 24, 25, 60),
      lags: fc.subarray(["secrets", "configMaps"] as const),
      asksFor: fc.constantFrom(undefined, undefined, "a", "b", "c"),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(action, { minLength: 20, maxLength: 60 }), async (actions) => {
        await resources.stop();
        server = resources.add(await startFakeApiServer());
        clock = fakeClock();
        keep = keeper();
        await settle();
        const world = trustedWorld();
        for (const { hours, lags, asksFor } of actions) {
          if (asksFor !== undefined) {
            const { annotations = {} } = (server.get("secrets", secretName, namespace)?.metadata ??
              {}) as { annotations?: Record<string, string> };
            annotate({ ...annotations, "connectors.alauda.io/rotate": asksFor });
          }
          await keeper(world.lagging(lags))().catch(expectConflict);
          world.look();
          clock.advance(hours * 60 * 60_000);
          world.look();
        }
      }),
      { numRuns: 25, endOnFailure: true },
    );
  });

  const expectConflict = (error: unknown): void => {
    if (!hasStatus(error, 409)) throw error;
  };

  function trustedWorld() {
    interface Seen {
      readonly signer: string;
      readonly bundle: string;
      until: number;
    }
    const history: Seen[] = [];
    const past = [snapshot()];
    return {
      /** Some caches show what was there some actions ago. */
      lagging(lags: readonly ("secrets" | "configMaps")[]) {
        past.push(snapshot());
        const view = past.at(-4) ?? past[0];
        return Object.fromEntries(lags.map((cache) => [cache, view?.[cache]]));
      },
      look(): void {
        const current = { signer: keys().authority.certificate, bundle: bundle() };
        const latest = history.at(-1);
        const isSame = latest?.signer === current.signer && latest.bundle === current.bundle;
        if (isSame) latest.until = clock.now();
        else history.push({ ...current, until: clock.now() });
        const recent = history.filter(({ until }) => until > clock.now() - day);
        for (const proxy of recent) {
          for (const client of recent) expect(client.bundle).to.contain(proxy.signer);
        }
      },
    };
  }
});
