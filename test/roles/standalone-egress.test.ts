/** A company's HTTP proxy: all that the process connects to goes by it, with a login that nothing shows. */
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { type EgressTestProxy, startEgressProxy } from "../support/egress-proxy.ts";
import { eventually } from "../support/eventually.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addBlob } from "../support/fake-registry-content.ts";
import { noise, sha256 } from "../support/oci-image.ts";
import { runProgram } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { type CiHost, runCommand, startCiHost, type Volume } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";

const names = fileURLToPath(new URL("names-of-test.ts", import.meta.url));
const login = { username: "alice", password: "secret-of-alice" };

describe("standalone mode: a company's HTTP proxy", function () {
  this.timeout(60_000);
  const resources = cleanup();
  let company: EgressTestProxy;
  let registry: FakeRegistry;
  let loginFile: string;
  let host: CiHost;
  let volume: Volume;
  let yaml: string;

  before(async () => {
    company = resources.add(await startEgressProxy());
    company.login = "build:company-secret-word";
    registry = resources.add(
      await startFakeRegistry({ auth: "bearer", tls: true, hostname: "registry.test" }),
    );
    loginFile = join(resources.add(makeTempFolder("login")).path, "login");
    await writeFile(loginFile, "build:company-secret-word\n", { mode: 0o600 });
    host = resources.add(
      await startCiHost({
        nodeArgs: [`--import=${names}`],
        args: [
          ...["--tunnel", "other.test"],
          ...["--egress-proxy", `http://127.0.0.1:${company.port}`],
          ...["--egress-login", loginFile],
        ],
      }),
    );
    host.keepSecret("the password at the company's proxy", "company-secret-word");
    host.keepSecret("its login as it is sent", Buffer.from(company.login).toString("base64"));
    yaml = connectorYaml({
      ref: "team-a/hub",
      address: registry.url,
      login,
      ca: registry.ca ?? "",
    });
    await host.write("hub.yaml", yaml);
    await host.waitForLog("connectors were added, removed or changed");
    volume = await host.mount("volume", "team-a/hub");
  });
  beforeEach(() => {
    company.requests.length = 0;
  });
  after(resources.stop);

  it("pulls and pushes by it, and takes a changed login without a restart", async () => {
    const blob = noise("blob", 200_000);
    const digest = sha256(blob);
    addBlob(registry.repository("app"), blob);
    const pulled = await volume.request("GET", "team-a/hub", `app/blobs/${digest}`);
    expect(pulled.body.equals(blob)).to.equal(true);
    const pushed = await volume.request(
      "POST",
      "team-a/hub",
      `app/blobs/uploads/?digest=${digest}`,
      {
        body: blob,
      },
    );
    expect(pushed.status).to.equal(201);
    expect(company.requests).to.have.lengthOf(2);

    company.login = "build:changed-secret-word";
    for (const socket of company.open) socket.destroy();
    await writeFile(loginFile, "build:changed-secret-word\n");
    await eventually(
      async () => {
        const { status } = await volume.request("GET", "team-a/hub", `app/blobs/${digest}`);
        for (const socket of company.open) socket.destroy();
        return status === 200;
      },
      () => "the changed login is not used",
    );
    const refused = company.requests.filter(({ status }) => status === 407);
    expect(refused.length).to.be.below(2);
  });

  it("leads the requests of tools to other hosts by it, too", async () => {
    const other = resources.add(await startFakeRegistry({ hostname: "other.test" }));
    const proxy = (await volume.read("http.proxy")).trim();
    const { stdout } = await runProgram(
      "curl",
      [
        "--silent",
        "--show-error",
        "--max-time",
        "10",
        `${other.url}/v2/`,
        "--write-out",
        "%{http_code}",
      ],
      { env: { http_proxy: proxy } },
    );
    expect(stdout).to.match(/200$/);
    expect(company.requests.map(({ target }) => target)).to.deep.equal([`${other.url}/v2/`]);
  });

  it("shows its login nowhere", async () => {
    expect(await host.leaks()).to.deep.equal([]);
  });

  it("does not start with a login that can't be read, and check says the same", async () => {
    const folder = resources.add(makeTempFolder("egress-check")).path;
    const missing = join(folder, "missing");
    const egress = ["--egress-proxy", "http://127.0.0.1:1", "--egress-login"];
    await writeFile(join(folder, "hub.yaml"), yaml, { mode: 0o600 });
    await writeFile(join(folder, "login"), "no-colon-secret-word", { mode: 0o600 });
    for (const file of [missing, join(folder, "login")]) {
      for (const command of [
        ["check", folder, "--login"],
        [
          "standalone",
          "--connectors",
          folder,
          "--state",
          join(folder, "state"),
          "--listen",
          "127.0.0.1:0",
        ],
      ]) {
        const { status, stderr } = await runCommand([...command, ...egress, file]);
        expect(status).to.equal(1);
        expect(stderr)
          .to.contain("the login of the egress proxy: found")
          .and.contain("USER:PASSWORD")
          .and.not.contain("secret-word");
      }
    }
    await rm(join(folder, "login"));
  });

  it("is the way of check, too", async () => {
    const folder = resources.add(makeTempFolder("egress-check")).path;
    await writeFile(join(folder, "hub.yaml"), yaml, { mode: 0o600 });
    const args = ["--login", "--egress-resolves", "--egress-login", loginFile];
    const proxy = ["--egress-proxy", `http://127.0.0.1:${company.port}`];
    const { status, stdout } = await runCommand(["check", folder, ...args, ...proxy]);
    expect(stdout).to.match(/ok\s+login/);
    expect(status).to.equal(0);
    expect(company.requests.map(({ target }) => target)).to.include(registry.host);
  });
});
