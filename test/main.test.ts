import { join } from "node:path";
import { expect } from "chai";
import { commandHelp, commandList } from "../src/config/help.ts";
import { version } from "../src/version.ts";
import { cleanup } from "./support/cleanup.ts";
import { type Outcome, runProgram } from "./support/program.ts";
import { makeTempFolder } from "./support/temp-folder.ts";

const main = join(import.meta.dirname, "../src/main.ts");

describe("a role in a cluster", () => {
  const resources = cleanup();
  after(resources.stop);

  it("ends where it can't start, and says why", async () => {
    const folder = resources.add(makeTempFolder("main")).path;
    const missing = join(folder, "missing");
    const { status, stderr } = await runProgram(process.execPath, [main, "csi"], {
      env: {
        ...{ KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: "1" },
        ...{ POD_NAMESPACE: "connectors-system", NODE_NAME: "node1" },
        ...{ AUDIENCE: "connectors-proxy", CLUSTER_DOMAIN: "cluster.local" },
        ...{ KUBELET_PLUGIN: missing, KUBELET_REGISTRATION: folder },
      },
    });
    expect(status).to.equal(1);
    expect(stderr).to.contain(`oci-connector: ${missing}/csi.sock: can't make a socket there`);
    expect(stderr).to.contain("ENOENT");
  });
});

describe("the program", () => {
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
});
