import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { type Cluster, startCluster } from "./cluster.ts";

const root = join(import.meta.dirname, "../..");

/** What the Prometheus operator installs, as far as the component monitoring needs it. */
const podMonitor = {
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: { name: "podmonitors.monitoring.coreos.com" },
  spec: {
    group: "monitoring.coreos.com",
    scope: "Namespaced",
    names: { kind: "PodMonitor", plural: "podmonitors" },
    versions: [
      {
        name: "v1",
        served: true,
        storage: true,
        schema: {
          openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true },
        },
      },
    ],
  },
};

/** Every selection of them, none and all included. */
function subsets(names: readonly string[]): readonly (readonly string[])[] {
  const [first, ...others] = names;
  if (first === undefined) return [[]];
  const without = subsets(others);
  return [...without, ...without.map((some) => [first, ...some])];
}

describe("the manifests in daemonset/", function () {
  this.timeout(5 * 60_000);
  const resources = cleanup();
  let cluster: Cluster;
  let folder: string;

  before(async function () {
    this.timeout(45 * 60_000); // building the API server cold
    folder = resources.add(makeTempFolder("components")).path;
    cluster = resources.add(await startCluster({ nodes: 0 }));
    if (!cluster.own) this.skip(); // it installs a definition of somebody else
    await cluster.kubectl(["apply", "-f", "-"], JSON.stringify(podMonitor));
    // A dry run makes no namespace, nor a kind for what is to lie in it.
    for (const file of ["namespace.yaml", "crd.yaml"]) {
      const namespace = ["create", "namespace", "connectors-system"];
      const apply = ["apply", "-f", join(root, "daemonset", file)];
      await cluster.kubectl(file === "namespace.yaml" ? namespace : apply);
    }
    await cluster.kubectl(["wait", "--for=condition=Established", "crd", "--all"]);
  });
  after(resources.stop);

  it("are accepted by the API server with every combination of components", async () => {
    const components = await readdir(join(root, "daemonset/components"));
    expect(components).to.include.members(["strict", "openshift", "older-kubernetes"]);
    /** The objects so far, as text: most are the same in many combinations, and one dry run each is enough. */
    const accepted = new Set<string>();
    // What is there for the time of an update changes nothing of the others, so it is enough to have it beside all of them.
    const lasting = components.filter((name) => !name.startsWith("update-"));
    for (const [index, chosen] of [...subsets(lasting), components].entries()) {
      const overlay = join(folder, `${index}`);
      await mkdir(overlay);
      const base = relative(overlay, join(root, "daemonset"));
      const kustomization = {
        apiVersion: "kustomize.config.k8s.io/v1beta1",
        kind: "Kustomization",
        resources: [base],
        components: chosen.map((name) => `${base}/components/${name}`),
      };
      await writeFile(join(overlay, "kustomization.yaml"), JSON.stringify(kustomization));
      const documents = (await cluster.kubectl(["kustomize", overlay])).split(/^---$/m);
      const unseen = documents.filter((document) => !accepted.has(document));
      const apply = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
      if (unseen.length > 0) {
        const answer = await cluster.kubectl(apply, unseen.join("---")).catch((error: unknown) => {
          throw new Error(`with ${chosen.join(", ") || "none"}: ${error}`);
        });
        expect(answer.trim().split("\n")).to.have.length(unseen.length);
      }
      for (const document of unseen) accepted.add(document);
      const daemonSet = documents.find((document) => /^kind: DaemonSet$/m.test(document));
      expect(daemonSet).to.match(/^ {2}name: connectors-node$/m);
    }
  });
});
