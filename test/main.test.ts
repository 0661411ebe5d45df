import { join } from "node:path";
import { expect } from "chai";
import { cleanup } from "./support/cleanup.ts";
import { runProgram } from "./support/program.ts";
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
