import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { type InstalledCluster, installedCluster } from "./installed-cluster.ts";

describe("the doctor in a Pod of the installation", function () {
  this.timeout(60_000);
  let cluster: InstalledCluster;

  before(async function () {
    this.timeout(45 * 60_000); // building a cluster cold
    cluster = await installedCluster();
  });

  it("can make every check, by the command of docs/install.md", async () => {
    const text = await readFile(join(import.meta.dirname, "../../../docs/install.md"), "utf8");
    const [command = ""] = /^kubectl run doctor [^`]*/m.exec(text) ?? [];
    expect(command).to.contain("connectors-doctor");
    const image = "localhost/oci-connector:test";
    const here = command.replace(/--image=\S+/, `--image=${image} --image-pull-policy=Never`);
    const output = await cluster.run(["bash", "-euc", here]);
    expect(output).to.match(/^11 ok$/m);
  });
});
