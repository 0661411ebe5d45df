import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { expect } from "chai";
import { parseAllDocuments } from "yaml";
import { proxyRole, proxyRoleBinding } from "../../src/controller/proxy-access.ts";
import { cleanup } from "../support/cleanup.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { type Cluster, startCluster } from "./cluster.ts";

const root = join(import.meta.dirname, "../..");

/** Commands in docs/rights.md, and what the last of them answers, in rows without their white space. */
interface Example {
  readonly component: string | undefined;
  readonly commands: readonly (readonly string[])[];
  readonly rows: readonly string[];
}

const squeezed = (row: string): string => row.trim().replace(/\s+/g, " ");

function examplesIn(text: string): readonly Example[] {
  const sections = text.split(/^(?=##+ )/m);
  return sections.flatMap((section) => {
    const [, component] = /^### With the component (\S+)/.exec(section) ?? [];
    const blocks = [...section.matchAll(/^```console\n(.*?)^```/gms)];
    return blocks.map(([, block = ""]) => {
      const lines = block.trimEnd().split("\n");
      const commands = lines.filter((line) => line.startsWith("$ kubectl "));
      return {
        component,
        commands: commands.map((line) => line.split(" ").slice(2)),
        rows: lines.filter((line) => !line.startsWith("$ ")).map(squeezed),
      };
    });
  });
}

describe("the rights in docs/rights.md", function () {
  this.timeout(60_000);
  const resources = cleanup();
  let cluster: Cluster;
  let examples: readonly Example[];
  let folder: string;
  /** What is installed at the moment. */
  let installed: string | undefined;

  before(async function () {
    this.timeout(30 * 60_000); // building the API server cold
    examples = examplesIn(await readFile(join(root, "docs/rights.md"), "utf8"));
    folder = resources.add(makeTempFolder("rights")).path;
    cluster = resources.add(await startCluster({ nodes: 0 }));
    if (!cluster.own) this.skip(); // it installs variants, one after the other
    await cluster.kubectl(["create", "namespace", "team-a"]);
    await cluster.kubectl(["create", "namespace", "team-b"]);
    const role = proxyRole("team-a", ["harbor", "harbor-ca"]);
    const proxy = { namespace: "connectors-system", name: "connectors-node" };
    const items = [role, proxyRoleBinding("team-a", proxy)];
    const list = JSON.stringify({ apiVersion: "v1", kind: "List", items });
    await cluster.kubectl(["apply", "-f", "-"], list);
  });
  after(resources.stop);

  /** The rights alone, and where they are. */
  async function manifests(component: string | undefined): Promise<string> {
    const overlay = join(folder, component ?? "base");
    await mkdir(overlay, { recursive: true });
    const base = relative(overlay, join(root, "daemonset"));
    const components = component === undefined ? [] : [`${base}/components/${component}`];
    const kustomization = { resources: [base], components };
    await writeFile(join(overlay, "kustomization.yaml"), JSON.stringify(kustomization));
    const text = await cluster.kubectl(["kustomize", overlay]);
    const items = parseAllDocuments(text).map((document) => document.toJS() as { kind: string });
    const ours = items.filter(({ kind }) => /Namespace|Account|Role|Binding$/.test(kind));
    const rights = ours.filter(({ kind }) => !kind.startsWith("ValidatingAdmission"));
    return JSON.stringify({ apiVersion: "v1", kind: "List", items: rights });
  }

  async function install(component: string | undefined): Promise<void> {
    const wanted = await manifests(component);
    if (installed === wanted) return;
    if (installed !== undefined) {
      // Of what an installation leaves over, nothing may be counted.
      const { items } = JSON.parse(installed) as { items: { kind: string }[] };
      const rights = items.filter(({ kind }) => kind !== "Namespace");
      const list = JSON.stringify({ apiVersion: "v1", kind: "List", items: rights });
      await cluster.kubectl(["delete", "-f", "-"], list);
    }
    await cluster.kubectl(["apply", "-f", "-"], wanted);
    installed = wanted;
  }

  const rowsOf = async (command: readonly string[]): Promise<readonly string[]> => {
    const output = await cluster.kubectl([...command, "--no-headers"]);
    return output.trimEnd().split("\n").map(squeezed);
  };

  it("are those that the manifests give", async () => {
    expect(examples).to.have.length(19);
    const everybodys = await rowsOf(
      "auth can-i --list --as=system:serviceaccount:connectors-system:nobody".split(" "),
    );
    for (const { component, commands, rows } of examples) {
      await install(component);
      for (const command of commands.slice(0, -1)) await cluster.kubectl(command);
      const last = commands.at(-1) ?? [];
      const found = (await rowsOf(last)).filter((row) => !everybodys.includes(row));
      expect(found, last.join(" ")).to.have.members(rows);
    }
  });

  it("name every component that changes them", async () => {
    const text = await readFile(join(root, "docs/rights.md"), "utf8");
    const base = await manifests(undefined);
    for (const component of await readdir(join(root, "daemonset/components"))) {
      const changesRights = (await manifests(component)) !== base;
      const isNamed = text.includes(`### With the component ${component}\n`);
      expect(isNamed, component).to.equal(changesRights);
    }
  });

  it("are no more than that the controller needs to pass them on", async () => {
    const text = await manifests(undefined);
    expect(text).not.to.match(/"(escalate|bind|impersonate|\*)"/);
  });
});
