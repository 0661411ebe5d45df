import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addBlob, addImage } from "../support/fake-registry-content.ts";
import { clientOf, errorIn, type TestClient } from "./test-client.ts";
import { startTestProxy, type TestProxy } from "./test-proxy.ts";

const manifestType = "application/vnd.oci.image.manifest.v1+json";

describe("access rules in the proxy: what a connector lets its users do", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    proxy = resources.add(await startTestProxy());
  });
  after(resources.stop);
  beforeEach(() => {
    registry.requests.length = 0;
  });

  const connect = (name: string, params: Readonly<Record<string, unknown>>): TestClient => {
    proxy.connect(name, registry.url, {
      credential: { username: "alice", password: "secret-of-alice" },
      params: Object.entries(params).map(([param, value]) => ({
        name: param,
        value: JSON.stringify(value),
      })),
    });
    return clientOf(proxy, name);
  };

  describe("by rules", () => {
    const rules = [
      { verbs: ["pull"], repositories: ["base/**"] },
      { verbs: ["push"], repositories: ["team-a/*"] },
      { verbs: ["delete"], repositories: ["trash/*"] },
    ];
    let client: TestClient;
    let digest: string;
    before(() => {
      client = connect("ruled", { rules });
      for (const name of ["base/alpine", "team-a/app", "trash/old", "other/app"]) {
        digest = addBlob(registry.repository(name), Buffer.from("blob"));
      }
    });

    const cases: readonly (readonly [string, string, "allowed" | "refused"])[] = [
      ["GET", "base/alpine/blobs/DIGEST", "allowed"],
      ["GET", "base/alpine/tags/list", "allowed"],
      ["POST", "base/alpine/blobs/uploads/", "refused"],
      ["PUT", "base/alpine/manifests/1", "refused"],
      ["DELETE", "base/alpine/blobs/DIGEST", "refused"],
      ["HEAD", "team-a/app/blobs/DIGEST", "allowed"],
      ["POST", "team-a/app/blobs/uploads/", "allowed"],
      ["DELETE", "team-a/app/blobs/DIGEST", "refused"],
      ["POST", "team-a/app/sub/blobs/uploads/", "refused"],
      ["DELETE", "trash/old/blobs/DIGEST", "allowed"],
      ["GET", "trash/old/tags/list", "refused"],
      ["GET", "other/app/blobs/DIGEST", "refused"],
      ["GET", "_catalog", "refused"],
    ];
    for (const [method, path, outcome] of cases) {
      it(`${method} ${path} is ${outcome}`, async () => {
        const answer = await client(method, path.replace("DIGEST", digest));
        expect(answer.status === 403 ? "refused" : "allowed").to.equal(outcome);
        if (outcome === "allowed") return;
        expect(registry.requests, "nothing reaches the registry").to.deep.equal([]);
        if (method !== "HEAD") {
          expect(errorIn(answer)).to.include({ code: "DENIED" });
          expect(errorIn(answer).message).to.contain("the rules of the connector team-a/ruled");
        }
      });
    }

    it("an upload that may be begun may be cancelled", async () => {
      const begun = await client("POST", "team-a/app/blobs/uploads/");
      expect((await client("DELETE", String(begun.headers.location))).status).to.equal(204);
    });

    it("a blob is mounted from what may be pulled, and uploaded otherwise", async () => {
      const mount = async (from: string): Promise<number> => {
        const other = addBlob(registry.repository(from), Buffer.from(`only in ${from}`));
        const query = `mount=${other}&from=${encodeURIComponent(from)}`;
        return (await client("POST", `team-a/app/blobs/uploads/?${query}`)).status;
      };
      expect(await mount("base/alpine")).to.equal(201);
      expect(await mount("other/app")).to.equal(202);
      const anywhere = await client("POST", `team-a/app/blobs/uploads/?mount=${digest}`);
      expect(anywhere.status).to.equal(202);
    });
  });

  it("a rule for all repositories of one component does not open the list of all", async () => {
    const client = connect("short", { rules: [{ verbs: ["pull"], repositories: ["*"] }] });
    registry.repository("secret/private").tags.set("1", "x");
    const answer = await client("GET", "_catalog");
    expect(answer.status).to.equal(403);
    expect(registry.requests).to.deep.equal([]);
    const all = connect("all", { rules: [{ verbs: ["pull"], repositories: ["**"] }] });
    expect((await all("GET", "_catalog")).status).to.equal(200);
  });

  describe("by more patterns than there may be", () => {
    const many = (length: number, one: string): readonly string[] => Array(length).fill(one);
    const costly = `${"**/a/".repeat(50)}b`;

    it("as they say, for now", async () => {
      const repositories = [...many(1_500, costly), "app"];
      const client = connect("many", { rules: [{ verbs: ["pull"], repositories }] });
      registry.repository("app").tags.set("1", "x");
      expect((await client("GET", "app/tags/list")).status).to.equal(200);
      expect((await client("GET", "other/tags/list")).status).to.equal(403);
      const tags = connect("tags", { immutableTags: [...many(1_500, "x*y"), "v*"] });
      expect((await tags("DELETE", "app/manifests/v1")).status).to.equal(403);
    });

    it("though not faster than neighbours can bear, who are not refused", async () => {
      const repositories = many(4_000, costly); // 1 MB
      const attacker = connect("attacker", { rules: [{ verbs: ["pull"], repositories }] });
      const neighbour = connect("neighbour", {
        rules: [{ verbs: ["pull"], repositories: ["app"] }],
      });
      registry.repository("app").tags.set("1", "x");
      const statuses: number[] = [];
      for (let count = 0; count < 20; count += 1) {
        const path = `${"a/".repeat(100)}x${count}/tags/list`;
        statuses.push((await attacker("GET", path)).status);
        expect((await neighbour("GET", "app/tags/list")).status).to.equal(200);
      }
      expect(statuses).to.include(429).and.include(403);
      const refused = await attacker("GET", `${"a/".repeat(100)}last/tags/list`);
      expect(refused.status).to.equal(429);
      expect(refused.headers["retry-after"]).to.equal("2");
      expect(errorIn(refused).detail).to.contain("1000 patterns");
    });
  });

  describe("by immutable tags", () => {
    let client: TestClient;
    before(() => {
      client = connect("kept", { immutableTags: ["v*"] });
    });

    const push = async (repository: string, tag: string, annotation: string) => {
      const { manifest, blobs } = addImage(registry.repository(repository), "image");
      const document = JSON.parse(String(blobs.get(manifest.digest)));
      const body = JSON.stringify({ ...document, annotations: { annotation } });
      return client("PUT", `${repository}/manifests/${tag}`, {
        headers: { "content-type": manifestType },
        body,
      });
    };

    it("a tag is made once", async () => {
      expect((await push("app", "v1", "first")).status).to.equal(201);
      const again = await push("app", "v1", "second");
      expect(again.status).to.equal(403);
      expect(errorIn(again).message).to.contain("app:v1 is immutable");
      expect((await push("app", "v2", "second")).status).to.equal(201);
    });

    it("the same manifest may be pushed again, as a retry does", async () => {
      expect((await push("app", "v3", "same")).status).to.equal(201);
      expect((await push("app", "v3", "same")).status).to.equal(201);
    });

    it("a tag that stands beside a digest is one, too", async () => {
      expect((await push("app", "v6", "first")).status).to.equal(201);
      const { manifest, blobs } = addImage(registry.repository("app"), "image");
      const body = String(blobs.get(manifest.digest));
      const pushWith = (query: string) =>
        client("PUT", `app/manifests/${manifest.digest}?${query}`, {
          headers: { "content-type": manifestType },
          body,
        });
      for (const query of ["tag=v6", "tag=new&t%61g=v6", "tag=latest&tag=%766"]) {
        const answer = await pushWith(query);
        expect(answer.status, query).to.equal(403);
        expect(errorIn(answer).message).to.contain("app:v6 is immutable");
      }
      expect((await pushWith("tag=v7&tag=latest")).status).to.equal(201);
      expect((await pushWith("tag=v7")).status).to.equal(201);
    });

    it("a tag is not deleted", async () => {
      await push("app", "v4", "x");
      expect((await client("DELETE", "app/manifests/v4")).status).to.equal(403);
    });

    it("other tags change as ever", async () => {
      expect((await push("app", "latest", "first")).status).to.equal(201);
      expect((await push("app", "latest", "second")).status).to.equal(201);
      expect((await client("DELETE", "app/manifests/latest")).status).to.equal(202);
    });

    it("a registry that does not say what is there keeps a tag from being pushed", async () => {
      const stop = registry.on("HEAD manifest", ({ fail }) => fail(500, "UNKNOWN"));
      const answer = await push("app", "v5", "x");
      stop();
      expect(answer.status).to.equal(503);
      expect((await push("app", "v5", "x")).status).to.equal(201);
    });
  });
});
