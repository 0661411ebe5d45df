/** A registry by its own name: the variables of a volume's `.env` are all that tools need. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { requirePrograms } from "../../tools/require-programs.ts";
import { cleanup } from "../support/cleanup.ts";
import { type Clients, prepareClients } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { storeBlobsIn } from "../support/hostile-downloads.ts";
import { writeTestImage } from "../support/oci-image.ts";
import { type Outcome, runProgram } from "../support/program.ts";
import { type CiHost, startCiHost, type Volume } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";

const names = fileURLToPath(new URL("names-of-test.ts", import.meta.url));
const login = { username: "alice", password: "secret-of-alice" };

describe("standalone mode: registries by their own names", function () {
  this.timeout(60_000);
  const resources = cleanup();
  let base: FakeRegistry;
  let target: FakeRegistry;
  let host: CiHost;
  let clients: Clients;
  let volume: Volume;
  /** The volume's `.env`. */
  let env: Readonly<Record<string, string>>;

  before(async () => {
    await requirePrograms(["curl"]);
    clients = resources.add(await prepareClients());
    const own = { auth: "bearer", tls: true } as const;
    base = resources.add(await startFakeRegistry({ ...own, hostname: "base.test" }));
    target = resources.add(await startFakeRegistry({ ...own, hostname: "target.test" }));
    const args = ["--tunnel", "tunnel,storage.test"];
    host = resources.add(await startCiHost({ args, nodeArgs: [`--import=${names}`] }));
    host.keepSecret("the registries' password", login.password);
    const documents = Object.entries({ base, target }).map(([name, { url, ca = "" }]) =>
      connectorYaml({ ref: `team-a/${name}`, address: url, login, ca }),
    );
    await host.write("registries.yaml", documents.join("\n---\n"));
    await host.waitForLog("connectors were added, removed or changed");
    volume = await host.mount("volume", "team-a/base,team-a/target");
    env = await variablesOf(volume);
  });
  after(resources.stop);

  async function variablesOf({ read }: Volume): Promise<typeof env> {
    const lines = (await read(".env")).trimEnd().split("\n");
    return Object.fromEntries(lines.map((line) => line.split(/=(.*)/s).slice(0, 2)));
  }
  async function see(running: Promise<Outcome>): Promise<Outcome> {
    const outcome = await running;
    host.saw("a client's output", outcome.stdout + outcome.stderr);
    return outcome;
  }
  const skopeo = (...args: readonly string[]): Promise<Outcome> =>
    see(clients.skopeo(args, { env }));
  const curl = (...args: readonly string[]): Promise<Outcome> =>
    see(runProgram("curl", ["--silent", "--show-error", "--max-time", "10", ...args], { env }));
  const succeeds = ({ status, stderr }: Outcome): void =>
    void expect({ status, stderr }).to.deep.equal({ status: 0, stderr: "" });

  it("copies an image from one registry to another, and back to a folder, with verified TLS", async () => {
    const { manifest } = addImage(base.repository("deep/app"), "1", { layerSizes: [1000, 70_000] });
    const from = `docker://${base.host}/deep/app:1`;
    const to = `docker://${target.host}/mirror/app:1`;
    succeeds(await skopeo("copy", from, to));
    expect(target.repository("mirror/app").tags.get("1")).to.equal(manifest.digest);
    succeeds(await skopeo("copy", to, `dir:${join(clients.folder, "out")}`));
    const image = await writeTestImage(join(clients.folder, "image"), { layerSizes: [5, 300_000] });
    succeeds(await skopeo("copy", image.reference, `docker://${base.host}/pushed:1`));
    expect(base.repository("pushed").tags.get("1")).to.equal(image.manifest.digest);
  });

  it("lets curl ask the registry's API, with its own proxy variables", async () => {
    base.repository("app").tags.set("7", "sha256:x");
    const { stdout, ...outcome } = await curl(`${base.url}/v2/app/tags/list`);
    succeeds({ stdout, ...outcome });
    expect(JSON.parse(stdout)).to.deep.equal({ name: "app", tags: ["7"] });
  });

  it("works the same where the proxy itself is spoken to by TLS", async () => {
    const proxy = (env.https_proxy ?? "").replace(/^http:(.*)@.*$/, `https:$1@${host.https}`);
    expect(proxy).to.match(/^https:/);
    const secure = { env: { ...env, https_proxy: proxy, HTTPS_PROXY: proxy } };
    const name = `docker://${base.host}/pushed:1`;
    succeeds(await see(clients.skopeo(["inspect", "--no-tags", name], secure)));
    const trust = ["--proxy-cacert", join(volume.path, "ca.crt")];
    const args = ["--silent", "--show-error", ...trust, `${base.url}/v2/app/tags/list`];
    const { stdout, ...outcome } = await see(runProgram("curl", args, secure));
    succeeds({ stdout, ...outcome });
    expect(JSON.parse(stdout)).to.have.property("name", "app");
  });

  it("leaves blobs to a tool, which fetches them from the storage host through a tunnel", async () => {
    const own = { auth: "bearer", tls: true, hostname: "passing.test" } as const;
    const registry = resources.add(await startFakeRegistry(own));
    const storage = resources.add(await startFakeRegistry({ tls: true, hostname: "storage.test" }));
    addImage(registry.repository("app"), "1", { layerSizes: [1000, 70_000] });
    storeBlobsIn(storage, registry);
    const { url: address, ca = "" } = registry;
    const params = [{ name: "redirects", value: "pass" }];
    await host.write(
      "passing.yaml",
      connectorYaml({ ref: "team-a/passing", address, login, ca, params }),
    );
    await eventually(
      () => host.logged("connectors were added, removed or changed").length > 1,
      () => "the connector is not there",
    );
    const passing = await host.mount("passing", "team-a/passing");
    const bundle = join(clients.folder, "bundle.crt");
    await writeFile(bundle, `${await passing.read("ca.crt")}${storage.ca}`);
    const variables = { ...(await variablesOf(passing)), SSL_CERT_FILE: bundle };
    const args = [
      "copy",
      `docker://${registry.host}/app:1`,
      `dir:${join(clients.folder, "passed")}`,
    ];
    succeeds(await see(clients.skopeo(args, { env: variables })));
    expect(storage.requests).to.have.length(3);
    expect(JSON.stringify(storage.requests)).to.not.match(/authorization/i);
    const pulled = host.logged('"connector":"team-a/passing"', '"verb":"pull"', '"status":307');
    expect(pulled).to.have.length(3);
    expect(pulled.join()).to.not.contain("Signature");
    const tunnels = (): readonly string[] =>
      host.logged('"method":"CONNECT"', `"host":"${storage.host}"`, '"decision":"allowed"');
    await eventually(
      () => tunnels().length > 0,
      () => "no tunnel is in the audit log",
    );
  });

  it("refuses what is neither a connector's nor public, and says why", async () => {
    const other = resources.add(await startFakeRegistry({ tls: true, hostname: "other.test" }));
    const answer = await curl("--include", `${other.url}/v2/`);
    expect(answer.status).not.to.equal(0);
    expect(answer.stdout).to.match(
      /HTTP\/1.1 403 other.test is at 127.0.0.1, an address of this machine/,
    );
    expect(other.requests).to.deep.equal([]);
  });

  it("refuses a stranger, and a volume that is unmounted", async () => {
    const late = await host.mount("late", "team-a/base");
    const proxy = (await late.read("https.proxy")).trim();
    const ask = () => curl("--proxy", proxy, `${base.url}/v2/app/tags/list`);
    succeeds(await ask());
    await host.unmount("late");
    expect((await ask()).stderr).to.include("407");
    expect((await curl("--proxy", `http://${host.http}`, `${base.url}/v2/`)).stderr).to.include(
      "407",
    );
  });

  it("writes who has done what to the audit log", () => {
    const pushed = host.logged('"message":"request"', '"verb":"push"', '"repository":"pushed"');
    expect(pushed.length).to.be.above(0);
    expect(JSON.parse(pushed.at(-1) ?? "")).to.include({ connector: "team-a/base", status: 201 });
    const refused = host.logged('"method":"CONNECT"', '"status":403');
    expect(JSON.parse(refused[0] ?? "")).to.include({ decision: "refused" });
    expect(refused[0]).to.match(/"host":"other.test:\d+"/);
  });

  it("shows the registries' passwords and tokens to nobody", async () => {
    for (const { auth } of [base, target]) {
      for (const token of auth.tokens.keys()) host.keepSecret(`upstream ${token}`, token);
    }
    expect(await host.leaks()).to.deep.equal([]);
  });
});
