/** The README's way from nothing to a job's first pull, run as it stands there. */
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { type Clients, prepareClients } from "../support/clients.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { runProgram, startProgram, systemPath } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { connectorYaml } from "./manifests.ts";
import { removeMounts } from "./mount-table.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const names = fileURLToPath(new URL("names-of-test.ts", import.meta.url));
const login = { username: "alice", password: "secret-of-alice" };

describe("README: from nothing to a job's first pull", function () {
  this.timeout(60_000);
  const resources = cleanup();
  let section: string;
  let folder: string;
  let clients: Clients;
  let registry: FakeRegistry;

  before(async () => {
    const readme = await readFile(join(root, "README.md"), "utf8");
    section = /^## Use it on a CI host\n(.*?)^## /ms.exec(readme)?.[1] ?? "";
    folder = resources.add(makeTempFolder("readme")).path;
    resources.defer(() => removeMounts(folder));
    clients = resources.add(await prepareClients());
    const options = { auth: "bearer", tls: true, hostname: "harbor.test" } as const;
    registry = resources.add(await startFakeRegistry(options));
    addImage(registry.repository("library/alpine"), "3");
  });
  after(resources.stop);

  const blocks = (language: string): readonly string[] =>
    [...section.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, "gms"))].map(
      ([, text = ""]) => text,
    );
  const lines = (text: string): readonly string[] => text.trimEnd().split(/(?<!\\)\n/);

  it("takes ten lines or fewer", () => {
    const [host = "", job = ""] = blocks("sh");
    expect(`${host}${job}`.trimEnd().split("\n").length).to.be.within(5, 10);
    expect(job).to.include("buildah pull harbor.example.com/");
  });

  it("shows the file that it tells to copy", async () => {
    const [shown] = blocks("yaml");
    expect(shown).to.equal(await readFile(join(root, "examples/standalone/harbor.yaml"), "utf8"));
  });

  it("works as it stands there", async () => {
    const [host = "", job = ""] = blocks("sh");
    const [clone = "", ...rest] = lines(host);
    expect(clone).to.match(/^git clone .* && cd \/opt\/oci-connector && npm ci$/);
    const at = (name: string): string => join(folder, name);
    await mkdir(at("bin"));
    const { url: address, ca = "" } = registry;
    await writeFile(at("edited.yaml"), connectorYaml({ ref: "team-a/harbor", address, login, ca }));
    const scripts = {
      editor: `#!/bin/sh\ncp ${at("edited.yaml")} "$1"\n`,
      buildah: `#!/bin/sh\nexec ${(await whereIs("buildah")).trim()} --root ${join(clients.folder, "storage")} --runroot ${join(clients.folder, "run")} --storage-driver vfs "$@"\n`,
    };
    for (const [name, text] of Object.entries(scripts)) {
      await writeFile(at(`bin/${name}`), text);
      await chmod(at(`bin/${name}`), 0o755);
    }
    const env = {
      PATH: `${at("bin")}:${systemPath}`,
      EDITOR: "editor",
      HOME: clients.home,
      TMPDIR: join(clients.folder, "tmp"),
      XDG_RUNTIME_DIR: join(clients.folder, "run"),
      CONTAINERS_CONF: join(clients.folder, "containers.conf"),
      NODE_OPTIONS: `--import=${names}`,
    };
    /** The places of a test, in those of the machine. */
    const here = (text: string): string =>
      text
        .replaceAll("/usr/local/bin", at("bin"))
        .replaceAll("/etc/oci-connector", at("etc"))
        .replaceAll("/run/job-7", at("job-7"))
        .replaceAll("harbor.example.com", registry.host)
        .replaceAll(/127\.0\.0\.1:5\d+/g, "127.0.0.1:0")
        .replaceAll(/oci-connector (standalone|mount|unmount|run) /g, `$&--state ${at("state")} `);

    const setUp = ["set -e", `cd ${root}`, here(rest.join("\n")), "wait"].join("\n");
    const process = resources.add(await startProgram("sh", ["-c", setUp], { env }));
    await process.waitFor(/"message":"ready"/);
    expect(process.output())
      .to.match(/^ {2}ok +login +https:\/\/harbor\.test:\d+ lets the connector's account in$/m)
      .and.not.include("FAILED");
    const pull = await runProgram("sh", ["-ec", here(job)], { env, cwd: folder });
    expect({ status: pull.status, stderr: pull.status === 0 ? "" : pull.stderr }).to.deep.equal({
      status: 0,
      stderr: "",
    });
    expect(registry.requests.map(({ target }) => target.kind)).to.include("blob");
    expect(process.output() + pull.stdout + pull.stderr).not.to.include(login.password);
  });

  const whereIs = async (program: string): Promise<string> =>
    (await runProgram("sh", ["-c", `command -v ${program}`])).stdout;
});
