import { join } from "node:path";
import { expect } from "chai";
import { readConditions } from "../../../src/controller/conditions.ts";
import { type InstalledCluster, install, installedCluster, until } from "./installed-cluster.ts";
import { startNodeRegistry } from "./node-registry.ts";
import { connector, login, namespace } from "./objects.ts";

const team = "strict";
const users = { alice: "password-of-alice" };

describe("the component strict", function () {
  this.timeout(180_000);
  let cluster: InstalledCluster;

  before(async function () {
    this.timeout(45 * 60_000); // building a cluster cold
    cluster = await installedCluster();
    // What an installation had before is not taken away by applying less.
    await cluster.kubectl(["delete", "clusterrolebinding", "connectors-secret-reader"]);
    await install(cluster, join(import.meta.dirname, "../install-strict"));
  });
  after(async () => {
    if (cluster !== undefined) await install(cluster);
  });

  it("reads the Secrets of no namespace that has not allowed it, and says how to", async () => {
    const { url: address } = await startNodeRegistry(cluster, "strict", { auth: "bearer", users });
    await cluster.apply(
      namespace(team),
      login({ namespace: team, name: "login" }, "alice", users.alice),
      connector({ namespace: team, name: "harbor" }, { address, secret: "login" }),
    );
    const message = await until(async () => {
      const conditions = readConditions(await cluster.get("connector", "harbor", team));
      return conditions.find(({ reason }) => reason === "SecretForbidden")?.message;
    }, "no condition SecretForbidden");
    const [, command = ""] = /`kubectl (.*?)`/.exec(message) ?? [];
    expect(command).to.match(/^create rolebinding /);
    await cluster.kubectl(command.split(" "));
    await cluster.wait("condition=Ready", "connector/harbor", team, 120);
  });
});
