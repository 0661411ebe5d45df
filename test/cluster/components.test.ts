import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { expect } from "chai";
import { parse, parseAllDocuments } from "yaml";
import { checkSettings, copiedSettings } from "../../src/doctor/check-settings.ts";
import type { Observed } from "../../src/doctor/cluster-reader.ts";
import { cleanup } from "../support/cleanup.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { type Cluster, startCluster } from "./cluster.ts";
import { changedSettings, writeOverlay } from "./overlay.ts";
import { podMonitorDefinition } from "./pod-monitor.ts";

const root = join(import.meta.dirname, "../..");

/** An object of the manifests. */
interface Rendered {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  /** Of a ServiceAccount. */
  readonly imagePullSecrets?: readonly object[];
  /** Of a binding. */
  readonly subjects?: readonly { readonly kind: string; readonly namespace?: string }[];
}

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
    await cluster.kubectl(["apply", "-f", "-"], JSON.stringify(podMonitorDefinition));
    // A dry run makes no namespace, nor a kind for what is to lie in it.
    for (const file of ["namespace.yaml", "crd.yaml"]) {
      const namespace = ["create", "namespace", "connectors-system"];
      const apply = ["apply", "-f", join(root, "daemonset", file)];
      await cluster.kubectl(file === "namespace.yaml" ? namespace : apply);
    }
    await cluster.kubectl(["wait", "--for=condition=Established", "crd", "--all"]);
  });
  after(resources.stop);

  /** Renders an overlay. @param kustomization what it says beside its base; `BASE` in a text is where that is */
  async function render(name: string, kustomization: object): Promise<string> {
    const overlay = join(folder, name);
    const base = relative(overlay, join(root, "daemonset"));
    const text = JSON.stringify({ resources: [base], ...kustomization });
    await writeOverlay(overlay, JSON.parse(text.replaceAll("BASE", base)));
    return cluster.kubectl(["kustomize", overlay]);
  }
  const allComponents = async (): Promise<readonly string[]> => {
    const names = await readdir(join(root, "daemonset/components"));
    return names.map((name) => `BASE/components/${name}`);
  };

  it("go into any namespace with all of their components", async () => {
    const components = await allComponents();
    const notInNamespaces =
      /^(Namespace|ClusterRole|ClusterRoleBinding|CSIDriver|CustomResourceDefinition|ValidatingAdmission\w+)$/;
    for (const namespace of ["connectors-system", "platform-oci"]) {
      const isDefault = namespace === "connectors-system";
      const text = await render(`in-${namespace}`, {
        components,
        ...(isDefault ? {} : { namespace }),
        ...changedSettings({ literals: ["CLUSTER_DOMAIN=corp.example"] }),
      });
      expect(text.includes("connectors-system"), namespace).to.equal(isDefault);
      const objects = parseAllDocuments(text).map((document) => document.toJS() as Rendered);
      const named = objects.filter(({ kind }) => kind === "Namespace");
      expect(named.map(({ metadata }) => metadata.name)).to.deep.equal([namespace]);
      const elsewhere = objects.filter(
        ({ kind, metadata }) => !notInNamespaces.test(kind) && metadata.namespace !== namespace,
      );
      expect(elsewhere, namespace).to.deep.equal([]);
      // Groups are in no namespace.
      const subjects = objects
        .flatMap((object) => object.subjects ?? [])
        .filter(({ kind }) => kind !== "Group");
      expect(new Set(subjects.map((subject) => subject.namespace))).to.deep.equal(
        new Set([namespace]),
      );
    }
  });

  it("copy settings of an overlay into fields, with the transformer that is for that", async () => {
    const literals = [
      "AUDIENCE=mine",
      "TOKEN_LIFETIME=7200",
      "KUBELET_PODS=/k/pods",
      "KUBELET_PLUGIN=/k/plugins/connectors-csi",
      "KUBELET_REGISTRATION=/k/plugins_registry",
    ];
    const text = await render("settings", {
      transformers: ["BASE/settings-in-fields"],
      ...changedSettings({ literals }),
    });
    expect(text).not.to.contain("/var/lib/kubelet");
    const objects = parseAllDocuments(text).map((document) => document.toJS() as Rendered);
    const observed = (kind: string): Observed => ({
      state: "found",
      value: objects.find((object) => object.kind === kind),
    });
    const data = Object.fromEntries(literals.map((literal) => literal.split("=")));
    expect(data).to.have.all.keys(copiedSettings.map(({ setting }) => setting));
    const holders = { CSIDriver: observed("CSIDriver"), DaemonSet: observed("DaemonSet") };
    expect(checkSettings(data, holders)).to.include({ verdict: "ok" });
  });

  it("name a pull secret, as docs/clusters.md has it", async () => {
    const text = await readFile(join(root, "docs/clusters.md"), "utf8");
    const [, yaml = ""] =
      /^```yaml\n(# my-cluster\/[^`]*secretGenerator[^`]*)^```/m.exec(text) ?? [];
    await mkdir(join(folder, "pull-secret"));
    await writeFile(join(folder, "pull-secret/image-login.json"), "{}");
    const objects = parseAllDocuments(await render("pull-secret", parse(yaml))).map(
      (document) => document.toJS() as Rendered,
    );
    const secret = objects.find(({ kind }) => kind === "Secret")?.metadata.name ?? "";
    expect(secret).to.match(/^image-login-/);
    const accounts = objects.filter(({ kind }) => kind === "ServiceAccount");
    expect(accounts.map(({ imagePullSecrets }) => imagePullSecrets)).to.deep.equal(
      accounts.map(() => [{ name: secret }]),
    );
  });

  it("are accepted by the API server with every combination of components", async () => {
    const components = await readdir(join(root, "daemonset/components"));
    expect(components).to.include.members(["strict", "openshift", "older-kubernetes"]);
    /** The objects so far, as text: most are the same in many combinations, and one dry run each is enough. */
    const accepted = new Set<string>();
    // What is there for the time of an update changes nothing of the others, so it is enough to have it beside all of them.
    // Those that vary node-images make no sense without it, and change nothing else.
    const isVariation = (name: string): boolean => name.startsWith("node-images-");
    const lasting = components.filter((name) => !name.startsWith("update-") && !isVariation(name));
    const variations = subsets(components.filter(isVariation));
    const combinations = [
      ...subsets(lasting),
      ...variations.map((some) => ["node-images", ...some]),
      components,
    ];
    for (const [index, chosen] of combinations.entries()) {
      const text = await render(`${index}`, {
        components: chosen.map((name) => `BASE/components/${name}`),
      });
      const documents = text.split(/^---$/m);
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
