import { expect } from "chai";
import { property } from "../../src/connector/document.ts";
import { type Ensured, ensureObject, matchesDesired } from "../../src/controller/ensure-object.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import type { KubeObject } from "../../src/kube/object-store.ts";
import { type FakeApiServer, startFakeApiServer } from "../kube/fake-api-server.ts";
import { cleanup } from "../support/cleanup.ts";

describe("ensureObject()", () => {
  const resources = cleanup();
  let server: FakeApiServer;
  const metadata = { name: "c-harbor", namespace: "team-a" };

  beforeEach(async () => {
    server = resources.add(await startFakeApiServer());
  });
  afterEach(resources.stop);

  const service = (): KubeObject | undefined => server.get("services", "c-harbor", "team-a");
  /** @param seen what the cache shows: the present, unless given, null for nothing */
  const ensure = (
    type: string,
    seen: KubeObject | undefined | null = service(),
  ): Promise<Ensured> =>
    ensureObject({
      client: createApiClient({ access: server.access }),
      collection: "/api/v1/namespaces/team-a/services",
      desired: {
        apiVersion: "v1",
        kind: "Service",
        spec: { type },
        metadata: { ...metadata, labels: { ours: "yes" } },
      },
      cached: seen ?? undefined,
      isOurs: (object) => property(property(object.metadata, "labels"), "ours") === "yes",
    });
  const typeOf = (object: KubeObject | undefined): unknown =>
    property(property(object, "spec"), "type");
  const asked = (): readonly string[] => server.requests.map(({ method }) => method);

  it("makes what is not there, changes what is otherwise, and else asks nothing", async () => {
    expect(typeOf((await ensure("A")).object)).to.equal("A");
    expect(typeOf((await ensure("B")).object)).to.equal("B");
    expect(typeOf(service())).to.equal("B");
    await ensure("B");
    expect(asked()).to.deep.equal(["POST", "PATCH"]);
    expect(server.requests[1]?.body).to.have.nested.property("metadata.uid", "uid-1");
    expect(server.requests[1]?.query.get("fieldManager")).to.equal("oci-connector");
  });

  it("asks nothing of an object as it stands in a list, without its kind", async () => {
    await ensure("A");
    const {
      kind: _,
      apiVersion: __,
      ...listed
    } = service() as KubeObject & Record<string, unknown>;
    await ensure("A", listed as unknown as KubeObject);
    expect(asked()).to.deep.equal(["POST"]);
  });

  it("changes what is ours though it was not seen yet", async () => {
    await ensure("A");
    const { isOurs: ours } = await ensure("B", null);
    expect(ours).to.equal(true);
    expect(typeOf(service())).to.equal("B");
  });

  it("leaves alone what is not ours", async () => {
    server.put("services", { metadata, spec: { type: "Foreign" } });
    for (const seen of [null, service()]) {
      const { isOurs: ours, object } = await ensure("A", seen);
      expect(ours).to.equal(false);
      expect(typeOf(object)).to.equal("Foreign");
    }
    expect(typeOf(service())).to.equal("Foreign");
    expect(asked().every((method) => method !== "PATCH")).to.equal(true);
  });

  it("leaves alone what somebody has put in the place of ours", async () => {
    await ensure("A");
    const seen = service();
    server.remove("services", "c-harbor", "team-a");
    server.put("services", { metadata, spec: { type: "Foreign" } });
    const error = await ensure("B", seen).catch((e: unknown) => e);
    expect(error).to.include({ status: 409 });
    expect(typeOf(service())).to.equal("Foreign");
  });
});

describe("matchesDesired()", () => {
  it("passes over what is left open", () => {
    const found = { a: 1, b: { c: [{ d: 1, e: 2 }], f: "x" }, g: null };
    for (const wanted of [{}, { a: 1 }, { b: { c: [{ d: 1 }] } }, found]) {
      expect(matchesDesired(found, wanted)).to.equal(true);
    }
  });

  it("sees what is missing, different, or too much in a list", () => {
    const found = { a: 1, b: { c: [1, 2] } };
    for (const wanted of [
      { a: 2 },
      { x: 1 },
      { a: { y: 1 } },
      { b: { c: [1] } },
      { b: { c: [2, 1] } },
      { b: { c: [1, 2, 3] } },
      { b: { c: {} }, a: "1" },
    ]) {
      expect(matchesDesired(found, wanted), JSON.stringify(wanted)).to.equal(false);
    }
    expect(matchesDesired(undefined, { a: 1 })).to.equal(false);
    expect(matchesDesired({ a: {} }, { a: [] })).to.equal(false);
  });
});
