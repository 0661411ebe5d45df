/** Everything that a client is answered, byte by byte: nothing in it is the registry's own secret. */
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { storeBlobsIn } from "../support/hostile-downloads.ts";
import { makeTestImage } from "../support/oci-image.ts";
import type { PlainResponse } from "../support/plain-request.ts";
import { type CiHost, startCiHost, type Volume } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";

describe("standalone mode: what a client is answered", function () {
  this.timeout(30_000);
  const resources = cleanup();
  const image = makeTestImage({ layerSizes: [1000, 30_000] });
  const login = { username: "alice", password: "secret-of-alice" };
  const ref = "team-a/hub";
  let registry: FakeRegistry;
  let storage: FakeRegistry;
  let host: CiHost;
  let volume: Volume;
  /** How many tokens the registry gave out. */
  let given = 0;

  before(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    storage = resources.add(await startFakeRegistry({ hostname: "localhost" }));
    addImage(registry.repository("base"), "1", { layerSizes: [1000] });
    host = resources.add(await startCiHost());
    host.keepSecret("the registry's password", login.password);
    registry.auth.answer = ({ token, lifetime }) => {
      given += 1;
      host.keepSecret(`upstream token ${given}`, token);
      return { token, expires_in: lifetime };
    };
    const params = [{ name: "allowedRedirectHosts", value: "localhost" }];
    await host.write("hub.yaml", connectorYaml({ ref, address: registry.url, login, params }));
    await host.waitForLog("connectors were added, removed or changed");
    volume = await host.mount("volume", ref);
  });
  after(resources.stop);

  /** Now that all of it has been used. */
  async function expectNoLeaks(): Promise<void> {
    expect(given).to.be.above(0);
    for (const { target } of registry.requests) {
      if (target.kind !== "upload") continue;
      host.keepSecret(`upload ${target.reference}`, `uploads/${target.reference}`);
      host.keepSecret(`upload ${target.reference}, in the singular`, `upload/${target.reference}`);
    }
    host.keepSecret("a signature of the storage", "Signature=f00d");
    host.keepSecret("the token server", `${registry.url}/token`);
    expect(await host.leaks()).to.deep.equal([]);
  }
  const ask = (
    method: string,
    path: string,
    body?: Buffer,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<PlainResponse> => {
    return volume.request(method, ref, path, { headers, ...(body && { body }) });
  };

  /** POST, GET, PATCH and PUT of a blob, wherever the answers send us. */
  async function pushBlob(digest: string, bytes: Buffer): Promise<PlainResponse[]> {
    const answers = [await ask("POST", "app/blobs/uploads/")];
    const next = (): string => answers.at(-1)?.headers.location ?? "none";
    answers.push(await ask("GET", next()));
    answers.push(await ask("PATCH", next(), bytes.subarray(0, 500)));
    answers.push(await ask("PATCH", next(), bytes.subarray(500)));
    answers.push(await ask("PUT", `${next()}&digest=${encodeURIComponent(digest)}`));
    return answers;
  }

  async function pushImage(): Promise<void> {
    const { manifest, config, layers, blobs } = image;
    for (const { digest } of [config, ...layers]) {
      expect(await ask("HEAD", `app/blobs/${digest}`)).to.have.property("status", 404);
      const answers = await pushBlob(digest, blobs.get(digest) ?? Buffer.alloc(0));
      expect(answers.map(({ status }) => status)).to.deep.equal([202, 204, 202, 202, 201]);
    }
    const type = { "content-type": manifest.mediaType };
    const pushed = await ask("PUT", "app/manifests/1", blobs.get(manifest.digest), type);
    expect(pushed.status).to.equal(201);
  }
  async function pullImage(): Promise<void> {
    for (const [digest, bytes] of image.blobs) {
      const kind = digest === image.manifest.digest ? "manifests" : "blobs";
      const { status, body } = await ask("GET", `app/${kind}/${digest}`);
      expect(status).to.equal(200);
      expect(body.equals(bytes)).to.equal(true);
    }
    expect(await ask("GET", "app/tags/list?n=1")).to.have.property("status", 200);
  }

  for (const style of ["relative", "absolute", "state", "gar", "ghcr"] as const) {
    it(`to a whole push and pull of a registry whose upload URLs are ${style}`, async () => {
      registry.uploadLocation = style;
      registry.repository("app").blobs.clear();
      await pushImage();
      await pullImage();
      const { headers } = await ask("POST", "app/blobs/uploads/");
      expect(await ask("DELETE", headers.location ?? "")).to.have.property("status", 204);
      await expectNoLeaks();
    });
  }

  it("to a mount from another repository, and to one that can't be", async () => {
    const [layer] = makeTestImage({ layerSizes: [1000] }).layers;
    const from = encodeURIComponent("namespaces/team-a/connectors/hub/base");
    const mount = `app/blobs/uploads/?mount=${layer?.digest}&from=`;
    expect(await ask("POST", mount + from)).to.have.property("status", 201);
    expect(await ask("POST", `${mount}elsewhere`)).to.have.property("status", 202);
    await expectNoLeaks();
  });

  it("to a pull of blobs that lie behind signed URLs", async () => {
    const undo = storeBlobsIn(storage, registry);
    const [layer] = makeTestImage({ layerSizes: [1000] }).layers;
    const pulled = await ask("GET", `base/blobs/${layer?.digest}`);
    expect(pulled).to.include({ status: 200, complete: true });
    const missing = await ask("GET", `base/blobs/sha256:${"0".repeat(64)}`);
    expect(missing.status).to.equal(404);
    expect(storage.requests).to.have.lengthOf(2);
    undo();
    await expectNoLeaks();
  });

  it("to all that can go wrong", async () => {
    const answer = async (wanted: number, method: string, path: string): Promise<void> => {
      const { status, rawHeaders } = await ask(method, path);
      expect(status, `${method} ${path}`).to.equal(wanted);
      expect(rawHeaders.map((name) => name.toLowerCase())).not.to.include("set-cookie");
    };
    await answer(404, "GET", "app/manifests/none");
    await answer(404, "PUT", "app/blobs/uploads/forged");
    for (const status of [400, 429, 500, 503]) {
      const undo = registry.on("GET tags", ({ fail }) => fail(status, "UNKNOWN"));
      await answer(status, "GET", "app/tags/list");
      undo();
    }
    registry.auth.rights = () => [];
    registry.auth.tokens.clear();
    await answer(403, "GET", "app/tags/list");
    registry.auth.rights = (_, { actions }) => actions;
    const undo = registry.on("GET /token", ({ fail }) => fail(500, "UNKNOWN"));
    registry.auth.tokens.clear();
    await answer(503, "GET", "base/tags/list");
    undo();
    registry.auth.users.set("alice", "another-password");
    registry.auth.tokens.clear();
    await answer(403, "GET", "base/tags/list");
    const stranger = await volume.request("GET", ref, "app/tags/list", {
      headers: { authorization: "Basic bm9ib2R5Om5vdGhpbmc=" },
    });
    expect(stranger.status).to.equal(401);
    expect(host.logged("request failed")).not.to.deep.equal([]);
    await expectNoLeaks();
  });

  it("and what is searched for would be found", async () => {
    const changed = { username: "alice", password: "another-password" };
    await host.write("hub.yaml", connectorYaml({ ref, address: registry.url, login: changed }));
    const undo = registry.on("GET tags", ({ request, send }) => {
      // The proxy itself holds back what it finds in errors and headers; it does not look into contents.
      const encoded = Buffer.from(String(request.headers.authorization)).toString("base64");
      return send(200, {}, Buffer.from(encoded));
    });
    expect(await ask("GET", "app/tags/list")).to.have.property("status", 200);
    undo();
    expect(await host.leaks()).not.to.deep.equal([]);
  });
});
