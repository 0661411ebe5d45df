/** The program as it is installed, and not as it lies in the clone. */
import { cp, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect } from "chai";
import { commandList } from "../src/config/help.ts";
import { version } from "../src/version.ts";
import { removeMounts } from "./roles/mount-table.ts";
import { cleanup } from "./support/cleanup.ts";
import { startNpmRegistry } from "./support/npm-registry.ts";
import { type Outcome, runProgram, startProgram, systemPath } from "./support/program.ts";
import { makeTempFolder } from "./support/temp-folder.ts";

const root = join(import.meta.dirname, "..");
const connector = `apiVersion: connectors.alauda.io/v1alpha1
kind: Connector
metadata: {name: hub, namespace: team-a}
spec: {connectorClassName: oci, address: "http://127.0.0.1:9"}
`;

/** What `npm pack` needs of the project. */
const packed = [
  "package.json",
  ".npmrc",
  "tsconfig.json",
  "tsconfig.build.json",
  "README.md",
  "LICENSE",
  "src",
  "proto",
  "test/log.test.ts",
];

function succeeds(outcome: Outcome): string {
  const { status, stdout, stderr } = outcome;
  expect({ status, stderr: status === 0 ? "" : stderr + stdout }).to.deep.equal({
    status: 0,
    stderr: "",
  });
  return stdout;
}

describe("the installed package", function () {
  this.timeout(180_000);
  const resources = cleanup();
  let folder: string;
  let tarball: string;
  let environment: Readonly<Record<string, string>>;

  before(async () => {
    folder = resources.add(makeTempFolder("package")).path;
    resources.defer(() => removeMounts(folder));
    environment = {
      HOME: folder,
      PATH: `${dirname(process.execPath)}:${systemPath}`,
      npm_config_cache: join(folder, "cache"),
      npm_config_update_notifier: "false",
    };
    // A copy, since packing compiles, and other tests read the clone meanwhile.
    const clone = join(folder, "clone");
    for (const path of packed) {
      await cp(join(root, path), join(clone, path), { recursive: true });
    }
    await symlink(join(root, "node_modules"), join(clone, "node_modules"));
    succeeds(
      await runProgram("npm", ["pack", "--pack-destination", folder], {
        cwd: clone,
        env: environment,
      }),
    );
    tarball = join(folder, `oci-connector-${version}.tgz`);
    const registry = resources.add(await startNpmRegistry(root));
    const install = ["install", "--global", "--prefix", join(folder, "prefix"), tarball];
    succeeds(
      await runProgram("npm", install, {
        cwd: folder,
        env: { ...environment, npm_config_registry: registry.url },
        timeout: 150_000,
      }),
    );
    expect(registry.asked).to.include("@grpc/grpc-js").and.not.include("mocha");
  });
  after(resources.stop);

  const program = (): string => join(folder, "prefix/bin/oci-connector");
  /** From a folder that is no clone. */
  const run = (args: readonly string[], env = {}): Promise<Outcome> =>
    runProgram(program(), args, { cwd: folder, env: { ...environment, ...env } });

  it("has compiled JavaScript and what that reads, and little of it", async () => {
    const files = succeeds(await runProgram("tar", ["-tzf", tarball]))
      .trim()
      .split("\n");
    const others = files.filter((file) => !/^package\/dist\/[a-z0-9/-]+\.js$/.test(file));
    expect(others.toSorted()).to.deep.equal([
      "package/LICENSE",
      "package/README.md",
      "package/package.json",
      "package/proto/README.md",
      "package/proto/csi.proto",
      "package/proto/pluginregistration.proto",
      "package/proto/volumes.proto",
    ]);
    expect(files.filter((file) => file.includes("/generated/"))).to.deep.equal([]);
    expect(files.length).to.be.within(100, 400);
    expect((await stat(tarball)).size).to.be.below(400 * 1024);
  });

  it("says what it can do, and which version it is", async () => {
    expect(succeeds(await run(["help"]))).to.equal(commandList);
    expect(succeeds(await run(["version"]))).to.equal(`oci-connector ${version}\n`);
    expect((await run(["standlone"])).status).to.equal(64);
  });

  it("renders, checks a folder, and reads a kubeconfig", async () => {
    const rendered = ["render", "config.json", "--connectors=hub", "--configuration=docker-config"];
    expect(JSON.parse(succeeds(await run(rendered)))).to.have.property("auths");
    const connectors = join(folder, "checked");
    await mkdir(connectors);
    await writeFile(join(connectors, "hub.yaml"), connector);
    expect(succeeds(await run(["check", connectors]))).to.include("Connector team-a/hub");
    const { status, stderr } = await run(["doctor"], { KUBECONFIG: join(folder, "none") });
    expect(status).to.equal(1);
    expect(stderr).to.include("the kubeconfig can't be read (ENOENT)");
  });

  it("serves a folder of connectors, and mounts a volume", async () => {
    const connectors = join(folder, "connectors");
    await mkdir(connectors);
    await writeFile(join(connectors, "hub.yaml"), connector);
    const state = join(folder, "state");
    const standalone = resources.add(
      await startProgram(
        program(),
        ["standalone", "--connectors", connectors, "--state", state, "--listen", "127.0.0.1:0"],
        { cwd: folder, env: environment },
      ),
    );
    await standalone.waitFor(/"message":"ready"/);
    const volume = join(folder, "volume");
    const mount = ["mount", volume, "--connectors", "team-a/hub", "--state", state];
    expect(succeeds(await run(mount))).to.include(`mounted ${volume} until `);
    expect(await readFile(join(volume, "context.token"), "utf8")).to.match(/^ey/);
    expect(succeeds(await run(["unmount", volume, "--state", state]))).to.include(volume);
  });
});

describe("the program of a clone, on the PATH", function () {
  this.timeout(30_000);
  const resources = cleanup();
  after(resources.stop);

  it("runs from anywhere by a link, with the Node.js of the clone", async () => {
    const { path } = resources.add(makeTempFolder("linked"));
    await symlink(join(root, "bin/oci-connector"), join(path, "oci-connector"));
    const env = { PATH: `${path}:${systemPath}` };
    const outcome = await runProgram("oci-connector", ["version"], { cwd: path, env });
    expect(succeeds(outcome)).to.equal(`oci-connector ${version}\n`);
    expect((await runProgram("oci-connector", ["mount"], { cwd: path, env })).status).to.equal(64);
  });

  it("can receive SIGUSR1 in a run, which passes it on, and nowhere else", async () => {
    const { path } = resources.add(makeTempFolder("signals"));
    const program = join(path, "bin/oci-connector");
    const node = join(path, "node_modules/.bin/node");
    await cp(join(root, "bin"), join(path, "bin"), { recursive: true });
    await mkdir(dirname(node), { recursive: true });
    await writeFile(node, '#!/bin/sh\necho "$@"\n', { mode: 0o755 });
    const argumentsOf = async (...args: readonly string[]): Promise<string> =>
      succeeds(await runProgram(program, args));
    const script = join(path, "src/main.ts");
    expect(await argumentsOf("run", "--", "ls")).to.equal(`${script} run -- ls\n`);
    expect(await argumentsOf("volumes")).to.equal(`--disable-sigusr1 ${script} volumes\n`);
  });

  it("says what is missing where npm ci was not run", async () => {
    const { path } = resources.add(makeTempFolder("bare"));
    await cp(join(root, "bin"), join(path, "bin"), { recursive: true });
    const { status, stdout, stderr } = await runProgram(join(path, "bin/oci-connector"), ["help"]);
    expect({ status, stdout }).to.deep.equal({ status: 1, stdout: "" });
    expect(stderr).to.equal(
      `oci-connector: found no ${path}/node_modules/.bin/node, wanted a clone with its packages: run "npm ci" in ${path}\n`,
    );
  });
});

describe("what users are told to run", () => {
  /** What users read or copy, and what the program says. CONTRIBUTING.md is for the clone, where npx runs what is installed. */
  const places = ["README.md", "SECURITY.md", "docs", "examples", "daemonset", "bin", "src"];
  /** Each of them runs a package by its name, whoever has registered that. */
  const byName = /\b(npx|bunx)\b|\bnpm (exec|x)\b|\b(pnpm|yarn) dlx\b/;

  it("is never a package by its name, which anybody may register", async () => {
    const files = (await Promise.all(places.map((place) => filesIn(join(root, place))))).flat();
    const found = await Promise.all(files.map(linesWith));
    expect(found.flat()).to.deep.equal([]);
    expect(files.length).to.be.above(300);
  });

  async function linesWith(file: string): Promise<readonly string[]> {
    const lines = (await readFile(file, "utf8")).split("\n");
    return lines.filter((line) => byName.test(line)).map((line) => `${file}: ${line}`);
  }

  async function filesIn(path: string): Promise<readonly string[]> {
    if (!(await stat(path)).isDirectory()) return [path];
    const entries = await readdir(path, { recursive: true, withFileTypes: true });
    return entries
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name));
  }
});
