import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import type { FakeRegistry } from "../support/fake-registry.ts";
import { addBlob } from "../support/fake-registry-content.ts";
import { makeTestImage, noise, sha256 } from "../support/oci-image.ts";
import type { PlainResponse } from "../support/plain-request.ts";
import { amazon } from "../support/registries/amazon.ts";
import { azure } from "../support/registries/azure.ts";
import { dockerHub } from "../support/registries/docker-hub.ts";
import { github } from "../support/registries/github.ts";
import { google } from "../support/registries/google.ts";
import { harbor } from "../support/registries/harbor.ts";
import { quay } from "../support/registries/quay.ts";
import type { RegistryScenario, RunningRegistry } from "../support/registries/scenario.ts";
import { registryScenarios } from "../support/registries/scenarios.ts";
import { clientOf, errorIn, sealedUpload, type TestClient } from "./test-client.ts";
import { startTestProxy, type TestProxy } from "./test-proxy.ts";

const type = "application/vnd.oci.image.manifest.v1+json";
const image = makeTestImage({ layerSizes: [100_000] });
const [layer] = image.layers;
const contentOf = (digest: string): Buffer => image.blobs.get(digest) ?? Buffer.alloc(0);

/** A registry of the scenario behind a proxy, and a client of it. */
interface Reached {
  readonly running: RunningRegistry;
  readonly proxy: TestProxy;
  readonly client: TestClient;
}

async function reach(
  scenario: RegistryScenario,
  resources: ReturnType<typeof cleanup>,
): Promise<Reached> {
  const running = resources.add(await scenario.start());
  const { lookup, address, credential, caCertificates, params, port } = running;
  const proxy = resources.add(await startTestProxy({ lookup }));
  proxy.connect("it", address, { credential, caCertificates, params, port });
  return { running, proxy, client: clientOf(proxy, "it") };
}

describe("the proxy before registries as they are", function () {
  this.timeout(20_000);
  const resources = cleanup();
  afterEach(resources.stop);

  for (const scenario of registryScenarios) {
    it(`${scenario.name}: push, pull, mount, list and delete`, async () => {
      const { running, client } = await reach(scenario, resources);
      await push(client, running);
      await pull(client, running);
      await mount(client, running);
      await list(client, running);
      await remove(client, running);
      expectDiscretion(running, client);
    });
  }

  it("Docker Hub: what is official, what is left of the limit, and 429", async () => {
    const { running, client } = await reach(dockerHub, resources);
    const { registry, budget = { left: 0 } } = running;
    const digest = addBlob(registry.repository("library/alpine"), noise("official", 1000));
    expect((await client("GET", `alpine/blobs/${digest}`)).status).to.equal(200);
    await push(client, running);
    budget.left = 1;
    const last = await client("GET", `${running.repository}/manifests/v1`);
    expect(last.headers).to.include({
      "ratelimit-limit": "100;w=21600",
      "ratelimit-remaining": "0;w=21600",
      "docker-ratelimit-source": "198.51.100.7",
    });
    const refused = await client("GET", `${running.repository}/manifests/v1`);
    expect(refused.status).to.equal(429);
    expect(refused.headers["retry-after"]).to.equal("3600");
    expect(errorIn(refused)).to.deep.equal({
      code: "TOOMANYREQUESTS",
      message: "You have reached your pull rate limit.",
    });
    const head = await client("HEAD", `${running.repository}/manifests/v1`);
    expect(head.status).to.equal(200);
  });

  it("Docker Hub: an account that may only read is asked for no more", async () => {
    const { running, client } = await reach(dockerHub, resources);
    const { registry } = running;
    const { rights } = registry.auth;
    await push(client, running);
    registry.auth.tokens.clear();
    registry.auth.rights = (user, wanted) =>
      wanted.actions.includes("push") ? [] : rights(user, wanted);
    await pull(client, running);
    const refused = await client("POST", `${running.repository}/blobs/uploads/`);
    expect(refused.status).to.equal(403);
    expect(errorIn(refused).code).to.equal("DENIED");
  });

  it("Harbor: a project that does not exist, in its own words, and no cookie", async () => {
    const { client } = await reach(harbor, resources);
    const answer = await client("GET", "team/nothing/manifests/v1");
    expect(answer.status).to.equal(404);
    expect(errorIn(answer)).to.deep.equal({
      code: "NOT_FOUND",
      message: "artifact team/nothing:v1 not found",
    });
    expect(answer.headers).to.include({ "x-request-id": "f1e2d3c4" });
    expect(answer.headers["set-cookie"]).to.equal(undefined);
    const elsewhere = await client("POST", "nothing/app/blobs/uploads/");
    expect(elsewhere.status).to.equal(403); // the account has no right in what does not exist
  });

  it("GitHub: the repository of the challenge is never asked for", async () => {
    const { running, client } = await reach(github, resources);
    await push(client, running);
    const urls = running.registry.requests.map(({ url }) => url);
    expect(urls.join(" ")).to.not.include("user");
  });

  it("Amazon: a repository that does not exist, in its own words", async () => {
    const { client } = await reach(amazon, resources);
    const answer = await client("POST", "nothing/blobs/uploads/");
    expect(answer.status).to.equal(404);
    expect(errorIn(answer)).to.deep.equal({
      code: "NAME_UNKNOWN",
      message:
        "The repository with name 'nothing' does not exist in the registry with id '123456789012'",
    });
    expect((await client("GET", "app/tags/list?n=1001")).status).to.equal(400);
  });

  it("Google: long heads arrive in whole", async () => {
    const { running, client } = await reach(google, resources);
    running.registry.repository(running.repository).tags.set("v1", "x");
    const { headers } = await client("GET", `${running.repository}/tags/list`);
    expect(Object.keys(headers).filter((name) => name.startsWith("x-huge-"))).to.have.length(21);
  });

  it("Azure: a token is used as long as one without a lifetime lasts", async () => {
    const { running, client } = await reach(azure, resources);
    for (let time = 0; time < 3; time += 1) await client("GET", "app/tags/list");
    const paths = running.registry.requests.map(({ url }) => url.split("?")[0]);
    expect(paths.filter((path) => path === "/oauth2/token")).to.have.length(1);
  });

  it("Quay: an upload is ended, though no token has the right to delete", async () => {
    const { client, running } = await reach(quay, resources);
    const begun = await client("POST", `${running.repository}/blobs/uploads/`);
    const location = begun.headers.location ?? "";
    expect((await client("DELETE", location)).status).to.equal(204);
    expect((await client("GET", location)).status).to.equal(404);
  });
});

async function push(client: TestClient, { repository }: RunningRegistry): Promise<void> {
  const { digest = "" } = layer ?? {};
  expect((await client("HEAD", `${repository}/blobs/${digest}`)).status).to.equal(404);
  const begun = await client("POST", `${repository}/blobs/uploads/`);
  expect(begun.status).to.equal(202);
  const patched = await client("PATCH", locationIn(begun, client), { body: contentOf(digest) });
  expect(patched.status).to.be.oneOf([201, 202]);
  const end = `${locationIn(patched, client)}&digest=${encodeURIComponent(digest)}`;
  const put = await client("PUT", end);
  expect(put.status).to.equal(201);
  expect(put.headers.location).to.equal(`${client.base}${repository}/blobs/${digest}`);
  const { config, manifest } = image;
  await upload(client, repository, contentOf(config.digest));
  const made = await client("PUT", `${repository}/manifests/v1`, {
    body: contentOf(manifest.digest),
    headers: { "content-type": type },
  });
  expect(made.status).to.equal(201);
  expect(made.headers["docker-content-digest"]).to.equal(manifest.digest);
  expect((await client("HEAD", made.headers.location ?? "")).status).to.equal(200);
}

/** By POST and PUT. */
async function upload(client: TestClient, repository: string, body: Buffer): Promise<void> {
  const begun = await client("POST", `${repository}/blobs/uploads/`);
  const end = `${locationIn(begun, client)}&digest=${encodeURIComponent(sha256(body))}`;
  expect((await client("PUT", end, { body })).status).to.equal(201);
}

/** Where an upload goes on: a sealed place at this proxy, whatever the registry has named. */
function locationIn({ headers: { location = "" } }: PlainResponse, client: TestClient): string {
  expect(location).to.match(sealedUpload);
  expect(location.replace(client.origin, "").startsWith(client.base)).to.equal(true, location);
  return location;
}

async function pull(client: TestClient, { repository }: RunningRegistry): Promise<void> {
  const { digest } = image.manifest;
  for (const reference of ["v1", digest]) {
    const read = await client("GET", `${repository}/manifests/${reference}`, {
      headers: { accept: type },
    });
    expect(read.status).to.equal(200);
    expect(read.headers).to.include({ "content-type": type, "docker-content-digest": digest });
    expect(read.body.equals(contentOf(digest))).to.equal(true);
  }
  for (const { digest: blob } of [image.config, ...image.layers]) {
    const read = await client("GET", `${repository}/blobs/${blob}`);
    expect(read.status).to.equal(200);
    expect(read.body.equals(contentOf(blob))).to.equal(true);
    const rest = await client("GET", `${repository}/blobs/${blob}`, {
      headers: { range: "bytes=100-" },
    });
    expect(rest.status).to.equal(206);
    expect(rest.body.equals(contentOf(blob).subarray(100))).to.equal(true);
  }
}

async function mount(client: TestClient, running: RunningRegistry): Promise<void> {
  const { registry, repository, other, answers } = running;
  const blob = noise("mounted", 1000);
  const stored = other === "alpine" ? "library/alpine" : other;
  const digest = addBlob(registry.repository(stored), blob);
  const from = encodeURIComponent(`namespaces/team-a/connectors/it/${other}`);
  const query = `mount=${encodeURIComponent(digest)}&from=${from}`;
  const answer = await client("POST", `${repository}/blobs/uploads/?${query}`);
  expect(answer.status).to.equal(answers.mount);
  if (answer.status === 202) {
    const put = await client("PUT", `${locationIn(answer, client)}&digest=${digest}`, {
      body: blob,
    });
    expect(put.status).to.equal(201);
  } else {
    expect(answer.headers.location).to.equal(`${client.base}${repository}/blobs/${digest}`);
  }
  expect((await client("HEAD", `${repository}/blobs/${digest}`)).status).to.equal(200);
}

async function list(client: TestClient, running: RunningRegistry): Promise<void> {
  const { repository, answers } = running;
  for (const tag of ["v2", "v3"]) {
    const body = contentOf(image.manifest.digest);
    const headers = { "content-type": type };
    await client("PUT", `${repository}/manifests/${tag}`, { body, headers });
  }
  const pages: string[][] = [];
  let next: string | undefined = `${repository}/tags/list?n=2`;
  while (next !== undefined && pages.length < 5) {
    const answer: PlainResponse = await client("GET", next);
    expect(answer.status).to.equal(200);
    pages.push(JSON.parse(answer.body.toString()).tags);
    next = /^<([^>]+)>; rel="next"$/.exec(String(answer.headers.link))?.[1];
  }
  expect(pages).to.deep.equal([["v1", "v2"], ["v3"]]);
  const catalog = await client("GET", "_catalog?n=1");
  expect(catalog.status).to.equal(answers.catalog);
  if (catalog.status !== 200) return;
  expect(catalog.headers.link).to.match(/^<\/v2\/namespaces\/team-a\/connectors\/it\/_catalog\?/);
}

async function remove(client: TestClient, running: RunningRegistry): Promise<void> {
  const { repository, answers } = running;
  const { manifest, config } = image;
  const things = ["manifests/v2", `manifests/${manifest.digest}`, `blobs/${config.digest}`];
  for (const thing of things) {
    const answer = await client("DELETE", `${repository}/${thing}`);
    expect(answer.status, thing).to.equal(answers.deletes);
  }
  const gone = await client("GET", `${repository}/manifests/v1`, { headers: { accept: type } });
  expect(gone.status).to.equal(answers.deletes === 202 ? 404 : 200);
}

/** The password went to where tokens come from, and neither it nor a token to where blobs lie. */
function expectDiscretion(running: RunningRegistry, { authorization }: TestClient): void {
  const { registry, tokenServer, storage, credential } = running;
  const { username, password } = credential;
  const login = `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
  const sent = (host: FakeRegistry | undefined): readonly (string | undefined)[] =>
    (host?.requests ?? []).map(({ headers }) => headers.authorization);
  expect(sent(storage).filter(Boolean)).to.deep.equal([]);
  if (storage !== undefined) expect(sent(storage)).to.not.deep.equal([]);
  expect(new Set(sent(tokenServer))).to.deep.equal(new Set(tokenServer && [login]));
  const everywhere = [registry, tokenServer, storage].flatMap(sent);
  expect(everywhere).to.include(login);
  expect(everywhere).to.not.include(authorization);
  if (registry.auth.mode === "basic") return;
  const withLogin = registry.requests.filter(({ headers }) => headers.authorization === login);
  expect(withLogin.filter(({ target }) => target.repository !== "")).to.deep.equal([]);
}
