import { join } from "node:path";
import { expect } from "chai";
import { startTestProxy, type TestProxy } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { type Clients, prepareClients } from "../support/clients.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { writeTestImage } from "../support/oci-image.ts";
import type { Outcome } from "../support/program.ts";

const alice = { username: "alice", password: "secret-of-alice" };
const basic = `Basic ${Buffer.from("alice:secret-of-alice").toString("base64")}`;

describe("skopeo and a registry whose login is odd", function () {
  this.timeout(60_000);
  const resources = cleanup();
  const undo = cleanup();
  let clients: Clients;
  let image: Awaited<ReturnType<typeof writeTestImage>>;
  let registry: FakeRegistry;
  let proxy: TestProxy;

  before(async () => {
    clients = resources.add(await prepareClients());
    const layerSizes = [100_000, 80_000, 60_000, 40_000, 20_000, 10_000];
    image = await writeTestImage(join(clients.folder, "image"), { layerSizes });
  });
  beforeEach(async () => {
    registry = undo.add(await startFakeRegistry({ auth: "bearer" }));
    proxy = undo.add(await startTestProxy());
    proxy.connect("harbor", registry.url, { credential: alice });
  });
  afterEach(undo.stop);
  after(resources.stop);

  const push = (repository: string): Promise<Outcome> =>
    clients.skopeo([
      "copy",
      "--dest-tls-verify=false",
      "--dest-creds",
      `x:${proxy.token("harbor")}`,
      image.reference,
      `docker://${proxy.prefix("harbor")}/${repository}:1`,
    ]);
  const pull = (repository: string): Promise<Outcome> =>
    clients.skopeo([
      "copy",
      "--src-tls-verify=false",
      "--src-creds",
      `x:${proxy.token("harbor")}`,
      `docker://${proxy.prefix("harbor")}/${repository}:1`,
      `dir:${join(clients.folder, repository)}`,
    ]);

  it("pushes to several repositories at a time, each of which has a service of its own", async () => {
    const services = new Map<string, string>();
    registry.auth.challenge = ({ realm, scope }) =>
      `Bearer realm="${realm}",service="svc-${scope.split(":")[1] ?? "none"}",scope="${scope}"`;
    registry.auth.answer = ({ token, lifetime }) => ({ token, expires_in: lifetime });
    registry.on("GET token", async ({ query, next }) => {
      const before = new Set(registry.auth.tokens.keys());
      await next();
      for (const token of registry.auth.tokens.keys()) {
        if (!before.has(token)) services.set(token, query.get("service") ?? "");
      }
    });
    registry.on(
      "* *",
      ({ request, target, next }) => {
        const token = request.headers.authorization?.slice("Bearer ".length) ?? "";
        const isForeign = services.get(token) !== `svc-${target.repository}`;
        if (target.repository !== "" && isForeign) delete request.headers.authorization;
        return next();
      },
      "before auth",
    );
    const repositories = ["a", "b", "c"];
    const pushed = await Promise.all(repositories.map(push));
    expect(pushed.map(({ stderr }) => stderr)).to.deep.equal(["", "", ""]);
    for (const name of repositories) {
      expect(registry.repository(name).tags.get("1")).to.equal(image.manifest.digest);
    }
    expect((await pull("b")).stderr).to.equal("");
  });

  it("pushes and pulls where /v2/ is open and everything else is a 404 to the anonymous", async () => {
    registry.auth.mode = "none";
    registry.on("* *", ({ request, target, fail, next }) => {
      if (target.kind === "ping" || request.headers.authorization === basic) return next();
      request.resume();
      return fail(404, "NAME_UNKNOWN");
    });
    expect((await push("private")).stderr).to.equal("");
    expect(registry.repository("private").tags.get("1")).to.equal(image.manifest.digest);
    expect((await pull("private")).stderr).to.equal("");
    const anonymous = registry.requests.filter(
      ({ headers, target }) => target.kind !== "ping" && headers.authorization === undefined,
    );
    expect(anonymous.length).to.be.within(1, 6);
  });
});
