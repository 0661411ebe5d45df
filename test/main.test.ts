import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { commandHelp, commandList } from "../src/config/help.ts";
import { nodeTooOld } from "../src/node-version.ts";
import { version } from "../src/version.ts";
import { cleanup } from "./support/cleanup.ts";
import { type Outcome, runProgram, systemPath } from "./support/program.ts";
import { makeTempFolder } from "./support/temp-folder.ts";

const main = join(import.meta.dirname, "../src/main.ts");

describe("main.ts: a role in a cluster", () => {
  const resources = cleanup();
  after(resources.stop);

  it("ends where it can't start, and says why", async () => {
    const folder = resources.add(makeTempFolder("main")).path;
    const missing = join(folder, "missing");
    const { status, stderr } = await runProgram(process.execPath, [main, "csi"], {
      env: {
        KUBERNETES_SERVICE_HOST: "127.0.0.1",
        KUBERNETES_SERVICE_PORT: "1",
        POD_NAMESPACE: "connectors-system",
        NODE_NAME: "node1",
        AUDIENCE: "connectors-proxy",
        CLUSTER_DOMAIN: "cluster.local",
        KUBELET_PLUGIN: missing,
        KUBELET_REGISTRATION: folder,
      },
    });
    expect(status).to.equal(1);
    expect(stderr).to.contain(`oci-connector: ${missing}/csi.sock: can't create a socket there`);
    expect(stderr).to.contain("ENOENT");
  });
});

describe("the program", () => {
  const resources = cleanup();
  after(resources.stop);
  const run = (...args: readonly string[]): Promise<Outcome> =>
    runProgram(process.execPath, [main, ...args]);

  it("prints its version", async () => {
    for (const outcome of await Promise.all([run("--version"), run("-V"), run("version")])) {
      expect(outcome).to.include({ status: 0, stdout: `oci-connector ${version}\n`, stderr: "" });
    }
  });

  it("prints the list of commands, or the help of one alone", async () => {
    const [nothing, list, mount, unmount, help] = await Promise.all([
      run(),
      run("help"),
      run("mount", "--help"),
      run("unmount", "-h"),
      run("help", "mount"),
    ]);
    for (const outcome of [nothing, list]) {
      expect(outcome).to.include({ status: 0, stdout: commandList, stderr: "" });
    }
    for (const outcome of [mount, help]) {
      expect(outcome).to.include({ status: 0, stdout: commandHelp.mount, stderr: "" });
    }
    expect(unmount).to.include({ status: 0, stdout: commandHelp.unmount, stderr: "" });
  });

  it("says which command may be meant, with a status of its own", async () => {
    const [command, topic, option] = await Promise.all([
      run("standlone"),
      run("help", "nonsense"),
      run("mount", "/nowhere", "--conector", "a"),
    ]);
    for (const { status, stdout, stderr } of [command, topic, option]) {
      expect({ status, stdout }).to.deep.equal({ status: 64, stdout: "" });
      expect(stderr).to.match(/^oci-connector: .*\n$/);
    }
    expect(command.stderr).to.include('found "standlone", wanted one of standalone, mount, ');
    expect(command.stderr).to.include("(did you mean standalone?)");
    expect(topic.stderr).to.include('found "nonsense", wanted one of standalone, mount, ');
    expect(option.stderr).to.include("(did you mean --connectors?)");
  });

  it("says so where its working directory is gone", async () => {
    const { path } = resources.add(makeTempFolder("gone"));
    const inRemovedFolder = (...args: readonly string[]): Promise<Outcome> =>
      runProgram("sh", ["-c", 'mkdir -p x && cd x && rmdir ../x && exec "$@"', "sh", ...args], {
        cwd: path,
      });
    const volumes = await inRemovedFolder(process.execPath, main, "volumes");
    const job = await inRemovedFolder(
      process.execPath,
      main,
      "run",
      "--connectors",
      "a",
      "--",
      "ls",
    );
    const stderr =
      "oci-connector: the working directory has been removed: change to a folder that exists\n";
    expect(volumes).to.include({ status: 1, stdout: "", stderr });
    expect(job).to.include({ status: 125, stdout: "", stderr });
  });
});

describe("an older Node.js", function () {
  this.timeout(60_000);
  const resources = cleanup();
  after(resources.stop);

  const wanted = "wanted 22.19 or newer";
  const expectRefusal = ({ status, stdout, stderr }: Outcome, found: string): void => {
    expect({ status, stdout }).to.deep.equal({ status: 1, stdout: "" });
    expect(stderr).to.match(/^.*\n$/);
    expect(stderr).to.include(`oci-connector: found Node.js ${found}, ${wanted}`);
  };

  for (const old of ["18.0.0", "20.19.2", "22.18.99", "22.9.0", "0.12.18", "nonsense"]) {
    it(`such as ${old} is told what is wanted`, () => {
      expect(nodeTooOld(old)).to.include(`found Node.js ${old}, ${wanted}`);
    });
  }

  it("is none where the program runs", () => {
    for (const fine of [process.versions.node, "22.19.0", "22.20.1", "24.0.0", "100.0.0-nightly"]) {
      expect(nodeTooOld(fine)).to.equal(undefined);
    }
  });

  it("is told so before anything else, and the process ends", async () => {
    const pretend =
      'Object.defineProperty(process, "versions", {value: {...process.versions, node: "20.1.0"}})';
    const args = ["--import", `data:text/javascript,${pretend}`, main, "help"];
    expectRefusal(await runProgram(process.execPath, args), "20.1.0");
  });

  it("is told so by the compiled program, which loads nothing that it lacks", async function () {
    const older = await olderNode();
    if (older === undefined) return this.skip();
    const folder = resources.add(makeTempFolder("compiled")).path;
    // Without the packages: who loads one of them before the version is known fails here.
    writeFileSync(join(folder, "package.json"), '{"type": "module"}');
    const root = join(import.meta.dirname, "..");
    execFileSync(join(root, "node_modules/.bin/tsc"), [
      "-p",
      join(root, "tsconfig.build.json"),
      "--outDir",
      join(folder, "dist"),
    ]);
    const outcome = await runProgram(older.path, [join(folder, "dist/main.js"), "help"]);
    expectRefusal(outcome, older.version);
    // That they are missing indeed.
    const current = await runProgram(process.execPath, [join(folder, "dist/main.js"), "help"]);
    expect(current.stderr).to.include("ERR_MODULE_NOT_FOUND");
  });

  /** One of the machine's own that the program refuses; beside the one that runs these tests there need not be any. */
  async function olderNode(): Promise<{ path: string; version: string } | undefined> {
    for (const folder of systemPath.split(":")) {
      const path = join(folder, "node");
      const { status, stdout } = await runProgram(path, ["-p", "process.versions.node"]).catch(
        () => ({ status: undefined, stdout: "" }),
      );
      const found = stdout.trim();
      if (status === 0 && nodeTooOld(found) !== undefined) return { path, version: found };
    }
    return undefined;
  }
});
