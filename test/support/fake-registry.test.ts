import { join } from "node:path";
import { expect } from "chai";
import { cleanup } from "./cleanup.ts";
import { type Clients, prepareClients } from "./clients.ts";
import { startFakeRegistry } from "./fake-registry.ts";
import { addBlob, addImage } from "./fake-registry-content.ts";
import { writeTestImage } from "./oci-image.ts";
import { plainRequest } from "./plain-request.ts";

describe("the fake registry", function () {
  this.timeout(60_000);
  const resources = cleanup();
  let clients: Clients;
  let image: Awaited<ReturnType<typeof writeTestImage>>;

  before(async () => {
    clients = resources.add(await prepareClients());
    image = await writeTestImage(join(clients.folder, "image"), { layerSizes: [100_000] });
  });
  after(resources.stop);

  const creds = "alice:secret-of-alice";
  for (const [auth, uploadLocation] of [
    ["none", "relative"],
    ["basic", "absolute"],
    ["bearer", "state"],
    ["bearer", "gar"],
    ["bearer", "ghcr"],
  ] as const) {
    it(`is one to skopeo, with auth ${auth} and ${uploadLocation} upload locations`, async () => {
      const registry = resources.add(await startFakeRegistry({ auth }));
      registry.uploadLocation = uploadLocation;
      const name = `docker://${registry.host}/team/app:1`;
      const pushed = await clients.skopeo([
        "copy",
        "--dest-tls-verify=false",
        "--dest-creds",
        creds,
        image.reference,
        name,
      ]);
      expect(pushed.stderr).to.equal("");
      expect(registry.repository("team/app").tags.get("1")).to.equal(image.manifest.digest);
      const pulled = await clients.skopeo([
        "copy",
        "--src-tls-verify=false",
        "--src-creds",
        creds,
        name,
        `dir:${join(clients.folder, `${auth}-${uploadLocation}`)}`,
      ]);
      expect(pulled.stderr).to.equal("");
    });
  }

  it("takes a token for what it was given for, as long as it lives", async () => {
    let time = 0;
    const registry = resources.add(await startFakeRegistry({ auth: "bearer", now: () => time }));
    const digest = addBlob(registry.repository("app"), Buffer.from("content"));
    const authorization = `Basic ${Buffer.from(creds).toString("base64")}`;
    const token = async (scope: string): Promise<string> => {
      const url = `${registry.url}/token?scope=${scope}`;
      const { body } = await plainRequest(url, { headers: { authorization } });
      return JSON.parse(body.toString()).token;
    };
    const get = async (bearer: string, path = `/v2/app/blobs/${digest}`): Promise<string> => {
      const headers = { authorization: `Bearer ${bearer}` };
      const { status, headers: answer } = await plainRequest(registry.url + path, { headers });
      return `${status} ${/error="(.*)"/.exec(answer["www-authenticate"] ?? "")?.[1] ?? ""}`;
    };
    const pull = await token("repository:app:pull");
    expect(await get(pull)).to.equal("200 ");
    expect(await get(await token("repository:apple:pull"))).to.equal("401 insufficient_scope");
    expect(await get(await token("repository:app:push"))).to.equal("401 insufficient_scope");
    expect(await get(`${pull}x`)).to.equal("401 invalid_token");
    expect(await get(`${pull}x`, "/v2/")).to.equal("401 invalid_token");
    expect(await get(pull, "/v2/")).to.equal("200 ");
    time += registry.auth.lifetime * 1000;
    expect(await get(pull)).to.equal("401 invalid_token");
  });

  it("has an upload go on only where it said, and its digest be right", async () => {
    const registry = resources.add(await startFakeRegistry());
    registry.uploadLocation = "state";
    const start = await plainRequest(`${registry.url}/v2/app/blobs/uploads/`, { method: "POST" });
    const first = start.headers.location ?? "";
    const patched = await plainRequest(first, { method: "PATCH", body: "content" });
    expect(patched.status).to.equal(202);
    const second = patched.headers.location ?? "";
    const [digest] = addImage(registry.repository("other"), "1").layers.map(
      (layer) => layer.digest,
    );
    const statuses = [];
    for (const location of [first, second.replace("%3D", "="), second]) {
      const { status } = await plainRequest(`${location}&digest=${digest}`, { method: "PUT" });
      statuses.push(status);
    }
    expect(statuses).to.deep.equal([404, 404, 400]);
  });

  it("may lie below a base path", async () => {
    const registry = resources.add(await startFakeRegistry({ basePath: "/docker/x" }));
    const start = `${registry.url}/docker/x/v2/app/blobs/uploads/`;
    const { headers } = await plainRequest(start, { method: "POST" });
    expect(headers.location).to.match(/^\/docker\/x\/v2\/app\/blobs\/uploads\//);
    const chunk = await plainRequest(registry.url + headers.location, { method: "PATCH" });
    expect(chunk.status).to.equal(202);
    expect(await plainRequest(`${registry.url}/v2/`)).to.include({ status: 404 });
  });

  it("mounts a blob that is there, serves parts of it, and pages of tags", async () => {
    const registry = resources.add(await startFakeRegistry({ tls: true }));
    const ask = (path: string, options: object = {}) =>
      plainRequest(registry.url + path, { ca: registry.ca ?? "", ...options });
    const digest = addBlob(registry.repository("base"), Buffer.from("content"));
    const mount = `/v2/app/blobs/uploads/?mount=${digest}&from=base`;
    expect(await ask(mount, { method: "POST" })).to.include({ status: 201 });
    const part = await ask(`/v2/app/blobs/${digest}`, { headers: { Range: "bytes=3-" } });
    expect([part.status, part.body.toString()]).to.deep.equal([206, "tent"]);

    for (const tag of ["a", "b", "c"]) addImage(registry.repository("app"), tag);
    const page = await ask("/v2/app/tags/list?n=2");
    expect(page.headers.link).to.equal('</v2/app/tags/list?last=b&n=2>; rel="next"');
    const rest = await ask("/v2/app/tags/list?last=b&n=2");
    expect(JSON.parse(rest.body.toString()).tags).to.deep.equal(["c"]);
    expect(registry.requests.map(({ status }) => status)).to.deep.equal([201, 206, 200, 200]);
  });
});
