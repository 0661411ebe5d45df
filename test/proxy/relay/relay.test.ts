import { expect } from "chai";
import { version } from "../../../src/version.ts";
import { cleanup } from "../../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake-registry.ts";
import { addBlob, addManifest } from "../../support/fake-registry-content.ts";
import { noise, sha256 } from "../../support/oci-image.ts";
import { clientOf, errorIn, type TestClient } from "../test-client.ts";
import { startTestProxy, type TestProxy } from "../test-proxy.ts";

const credential = { username: "alice", password: "secret-of-alice" };

describe("requests that the proxy passes on to a registry", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let registry: FakeRegistry;
  let proxy: TestProxy;
  let client: TestClient;

  beforeEach(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    proxy = resources.add(await startTestProxy());
    proxy.connect("harbor", registry.url, { credential });
    client = clientOf(proxy, "harbor");
  });
  afterEach(resources.stop);

  const seen = (): FakeRegistry["requests"] =>
    registry.requests.filter(({ target }) => target.kind !== "ping" && target.kind !== "token");
  const urls = (): string[] => seen().map(({ method, url }) => `${method} ${url}`);

  it("keep their query byte for byte, but for what mirrors add", async () => {
    const digest = sha256(Buffer.from("x"));
    await client("GET", "app/tags/list?n=2&last=a%2Fb%3D%3D&ns=docker.io");
    await client(
      "GET",
      `app/referrers/${digest}?ns=docker.io&artifactType=application%2Fvnd.x%2Bjson`,
    );
    await client("GET", "app/manifests/1?ns=docker.io");
    await client("GET", "app/tags/list?from=a&mount=b&origin=c");
    expect(urls()).to.deep.equal([
      "GET /v2/app/tags/list?n=2&last=a%2Fb%3D%3D",
      `GET /v2/app/referrers/${digest}?artifactType=application%2Fvnd.x%2Bjson`,
      "GET /v2/app/manifests/1",
      "GET /v2/app/tags/list?from=a&mount=b&origin=c",
    ]);
  });

  it("have the registry's own Host, and nothing of the client's credentials", async () => {
    await client("GET", "app/tags/list", {
      headers: {
        "x-forwarded-host": "evil.test",
        "x-forwarded-proto": "https",
        forwarded: "host=evil.test",
        cookie: "a=b",
        "user-agent": "skopeo/1.9",
        accept: "x/y",
        "x-hop": "1",
        connection: "close, x-hop",
      },
    });
    const headers = seen()[0]?.headers;
    expect(headers).to.include({
      host: registry.host,
      accept: "x/y",
      "user-agent": `oci-connector/${version} skopeo/1.9`,
    });
    expect(headers?.authorization).to.match(/^Bearer token-/);
    for (const name of ["x-forwarded-host", "x-forwarded-proto", "forwarded", "cookie", "x-hop"]) {
      expect(headers).to.not.have.property(name);
    }
  });

  it("go below a registry's base path", async () => {
    proxy.connect("based", `${registry.url}/artifactory/docker`);
    registry.auth.mode = "none";
    const answer = await clientOf(proxy, "based")("GET", "app/tags/list?n=1");
    expect(answer.status).to.equal(404);
    expect(registry.requests.map(({ url }) => url)).to.deep.equal([
      "/artifactory/docker/v2/",
      "/artifactory/docker/v2/app/tags/list?n=1",
    ]);
  });

  it("come back with pages that can be turned", async () => {
    const tags = ["a", "b", "c", "d", "e"];
    for (const tag of tags) registry.repository("team/app").tags.set(tag, "x");
    const found: string[] = [];
    let path: string | undefined = "team/app/tags/list?n=2";
    for (let page = 0; path !== undefined; page++) {
      expect(page).to.be.below(3);
      const answer = await client("GET", path);
      expect(answer.status).to.equal(200);
      found.push(...JSON.parse(answer.body.toString()).tags);
      const link = answer.headers.link as string | undefined;
      path =
        /^<(\/v2\/namespaces\/team-a\/connectors\/harbor\/team\/app\/tags\/list\?[^>]+)>; rel="next"$/.exec(
          link ?? "",
        )?.[1];
      expect(path === undefined).to.equal(link === undefined);
    }
    expect(found).to.deep.equal(tags);
  });

  it("come back with a Link in the short form where that was asked", async () => {
    for (const tag of ["a", "b"]) registry.repository("app").tags.set(tag, "x");
    const headers = { host: "c-harbor.team-a.svc.cluster.local" };
    const answer = await client("GET", "/v2/app/tags/list?n=1", { headers });
    expect(answer.headers.link).to.equal('</v2/app/tags/list?last=a&n=1>; rel="next"');
  });

  it("list the registry's repositories, under the names that they have there", async () => {
    for (const name of ["a", "b", "c"]) registry.repository(`team/${name}`);
    const first = await client("GET", "_catalog?n=2");
    expect(JSON.parse(first.body.toString())).to.deep.equal({ repositories: ["team/a", "team/b"] });
    const next = `${client.base}_catalog?last=team%2Fb&n=2`;
    expect(first.headers.link).to.equal(`<${next}>; rel="next"`);
    const second = await client("GET", next);
    expect(JSON.parse(second.body.toString())).to.deep.equal({ repositories: ["team/c"] });
    const tokens = registry.requests.filter(({ target }) => target.kind === "token");
    const scopes = tokens.map(({ url }) => new URL(url, registry.url).searchParams.get("scope"));
    expect(scopes).to.deep.equal(["registry:catalog:*"]);
    const headers = { host: "c-harbor.team-a.svc.cluster.local" };
    const short = await client("GET", "/v2/_catalog?n=2", { headers });
    expect(short.headers.link).to.equal('</v2/_catalog?last=team%2Fb&n=2>; rel="next"');
  });

  it("say that neither path nor host names a registry whose repositories could be listed", async () => {
    const answer = await client("GET", "/v2/_catalog");
    expect(answer.status).to.equal(404);
    expect(errorIn(answer).code).to.equal("NAME_UNKNOWN");
    expect(seen()).to.deep.equal([]);
  });

  it("push manifests, whose Location can be asked for", async () => {
    const config = addBlob(registry.repository("app"), Buffer.from("{}"));
    const body = JSON.stringify({ config: { digest: config }, subject: { digest: config } });
    const type = "application/vnd.oci.image.manifest.v1+json";
    const answer = await client("PUT", "app/manifests/1", {
      body,
      headers: { "content-type": type },
    });
    expect(answer.status).to.equal(201);
    const digest = sha256(Buffer.from(body));
    expect(answer.headers).to.include({
      location: `${client.base}app/manifests/${digest}`,
      "docker-content-digest": digest,
      "oci-subject": config,
    });
    const read = await client("GET", answer.headers.location ?? "");
    expect(read.body.toString()).to.equal(body);
    expect(read.headers["content-type"]).to.equal(type);
    expect((await client("DELETE", `app/manifests/${digest}`)).status).to.equal(202);
    expect((await client("DELETE", `app/blobs/${config}`)).status).to.equal(202);
    const referrers = await client("GET", `app/referrers/${config}?artifactType=x`);
    expect(referrers.headers).to.include({
      "content-type": "application/vnd.oci.image.index.v1+json",
      "oci-filters-applied": "artifactType",
    });
  });

  it("refuse a manifest that is too large, and take one of 4 MiB", async () => {
    const big = Buffer.alloc(8 * 1024 * 1024 + 1, " ");
    const known = await client("PUT", "app/manifests/1", { body: big });
    expect(known.status).to.equal(413);
    expect(known.body.toString()).to.contain("SIZE_INVALID");
    const { Readable } = await import("node:stream");
    const unknown = await client("PUT", "app/manifests/1", { body: Readable.from([big]) });
    expect(unknown.status).to.equal(413);
    expect(seen()).to.deep.equal([]);
    const document = JSON.stringify({ layers: [], annotations: { a: "x".repeat(4_190_000) } });
    expect((await client("PUT", "app/manifests/1", { body: document })).status).to.equal(201);
  });

  describe("to mount a blob", () => {
    const blob = noise("mounted", 1000);
    const digest = sha256(blob);
    const own = "namespaces%2Fteam-a%2Fconnectors%2Fharbor%2F";
    const mounting = (from: string) =>
      client("POST", `app/blobs/uploads/?from=${from}&mount=${digest}`);
    beforeEach(() => {
      addBlob(registry.repository("lib/base"), blob);
    });

    for (const [name, from] of [
      ["with our prefix", `${own}lib%2Fbase`],
      ["without it, as through a mirror", "lib%2Fbase"],
    ] as const) {
      it(`are translated ${name}`, async () => {
        const answer = await mounting(from);
        expect(answer.status).to.equal(201);
        expect(answer.headers).to.include({
          location: `${client.base}app/blobs/${digest}`,
          "docker-content-digest": digest,
        });
        const mount = `mount=${encodeURIComponent(digest)}&from=lib%2Fbase`;
        expect(urls()).to.deep.equal([`POST /v2/app/blobs/uploads/?${mount}`]);
        expect(registry.repository("app").blobs.has(digest)).to.equal(true);
      });
    }

    it("begin an upload where the registry does", async () => {
      const answer = await mounting(`${own}none`);
      expect(answer.status).to.equal(202);
      expect(seen()).to.have.length(1);
      const put = await client("PUT", `${answer.headers.location}&digest=${digest}`, {
        body: blob,
      });
      expect(put.status).to.equal(201);
    });

    const plain = async (path: string): Promise<void> => {
      const answer = await client("POST", path);
      expect(answer.status).to.equal(202);
      expect(urls().at(-1)).to.equal("POST /v2/app/blobs/uploads/");
      const put = await client("PUT", `${answer.headers.location}&digest=${digest}`, {
        body: blob,
      });
      expect(put.status).to.equal(201);
    };
    for (const [name, query] of [
      ["from another connector", `mount=${digest}&from=${own.replace("harbor", "ghcr")}lib%2Fbase`],
      ["from another registry", `mount=${digest}&from=lib%2Fbase&origin=index.docker.io`],
      ["from nowhere", `mount=${digest}&from=..%2Fbase`],
      ["of nothing", "mount=nothing&from=lib%2Fbase"],
    ] as const) {
      it(`begin a plain upload ${name}`, async () => {
        await plain(`app/blobs/uploads/?${query}`);
        expect(urls().filter((url) => url.includes("mount"))).to.deep.equal([]);
      });
    }

    for (const status of [400, 401, 403, 404, 405, 500, 503]) {
      it(`begin a plain upload where the registry answers ${status}`, async () => {
        registry.on("POST uploads", ({ query, fail, next }) =>
          query.has("mount") ? fail(status, "DENIED") : next(),
        );
        await plain(`app/blobs/uploads/?mount=${digest}&from=${own}lib%2Fbase`);
      });
    }

    it("begin a plain upload where the account may not read the other repository", async () => {
      registry.auth.rights = (_, { name, actions }) => (name === "lib/base" ? [] : actions);
      await plain(`app/blobs/uploads/?mount=${digest}&from=${own}lib%2Fbase`);
    });

    it("begin a plain upload where the token server refuses such a token", async () => {
      registry.on("GET token", ({ query, fail, next }) =>
        query.getAll("scope").length > 1 ? fail(403, "DENIED") : next(),
      );
      await plain(`app/blobs/uploads/?mount=${digest}&from=${own}lib%2Fbase`);
    });

    it("are denied where the account may not push at all", async () => {
      registry.auth.rights = () => [];
      const answer = await mounting(`${own}lib%2Fbase`);
      expect(answer.status).to.equal(403);
    });
  });

  it("delete as somebody who may push, where the token server knows no other right", async () => {
    registry.on("GET token", ({ query, fail, next }) =>
      query.get("scope")?.endsWith(":delete") ? fail(400, "INVALID_REQUEST") : next(),
    );
    registry.on(
      "DELETE *",
      ({ request, send }) => {
        const grant = registry.auth.tokens.get(request.headers.authorization?.slice(7) ?? "");
        send(grant?.access[0]?.actions.includes("push") ? 202 : 401, {});
      },
      "before auth",
    );
    const digest = sha256(Buffer.from("x"));
    for (const path of ["app/manifests/1", `app/manifests/${digest}`, `app/blobs/${digest}`]) {
      expect((await client("DELETE", path)).status, path).to.equal(202);
    }
    registry.auth.rights = () => ["pull"];
    registry.auth.tokens.clear();
    const refused = await client("DELETE", "other/manifests/1");
    expect(refused.status).to.equal(403);
    expect(errorIn(refused).code).to.equal("DENIED");
  });

  it("know Docker Hub's official images by the names that people use", async () => {
    // The Hub's address is fixed, so this goes no further than the first step.
    const hub = proxy.connect("hub", "https://docker.io");
    proxy.surroundings.connectors.set("team-a/hub", {
      ...hub,
      address: { ...hub.address, origin: registry.url, hostname: "127.0.0.1", scheme: "http" },
    });
    registry.auth.mode = "none";
    addManifest(registry.repository("library/alpine"), "3", {
      mediaType: "x/y",
      bytes: Buffer.from("{}"),
    });
    const send = clientOf(proxy, "hub");
    expect((await send("GET", "alpine/manifests/3")).status).to.equal(200);
    const begun = await send("POST", "alpine/blobs/uploads/");
    expect(begun.headers.location).to.contain(`${send.base}alpine/blobs/uploads/`);
    const put = await send("PUT", `${begun.headers.location}&digest=${sha256(Buffer.from("x"))}`, {
      body: "x",
    });
    expect(put.headers.location).to.equal(`${send.base}alpine/blobs/${sha256(Buffer.from("x"))}`);
  });
});
