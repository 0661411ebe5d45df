import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { parse, parseAllDocuments } from "yaml";

const root = join(import.meta.dirname, "../..");
const read = (file: string): Promise<string> => readFile(join(root, file), "utf8");

interface Workload {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: {
    readonly template: {
      readonly metadata: { readonly labels: Readonly<Record<string, string>> };
      readonly spec: { readonly containers: readonly Container[] };
    };
  };
}
interface Container {
  readonly name: string;
  readonly ports: readonly { readonly name: string; readonly containerPort: number }[];
}

describe("the scraping of metrics", () => {
  let workloads: readonly Workload[];
  before(async () => {
    const files = await Promise.all(
      ["daemonset.yaml", "controller.yaml"].map((file) => read(`daemonset/${file}`)),
    );
    const documents = files.flatMap((text) => [...parseAllDocuments(text, { merge: true })]);
    const objects = documents.map((document) => document.toJS() as Workload);
    workloads = objects.filter(({ kind }) => kind === "DaemonSet" || kind === "Deployment");
  });

  /** `| csi | DaemonSet connectors-node | 9808, csi-health |`, as the manifests have it. */
  const health = (): readonly string[] =>
    workloads.flatMap(({ kind, metadata, spec }) =>
      spec.template.spec.containers.flatMap(({ name, ports }) =>
        ports
          .filter((port) => port.name.endsWith("health"))
          .map(
            (port) =>
              `| \`${name}\` | ${kind} \`${metadata.name}\` | ${port.containerPort}, \`${port.name}\` |`,
          ),
      ),
    );

  it("finds every role where docs/metrics.md says it is", async () => {
    const rows = (await read("docs/metrics.md")).match(
      /^\| `\w+` \| (DaemonSet|Deployment) .*\|$/gm,
    );
    expect(rows).to.have.members(health());
  });

  it("is told of every role by the component", async () => {
    const { spec } = parse(await read("daemonset/components/monitoring/podmonitor.yaml")) as {
      spec: {
        selector: { matchLabels: Record<string, string> };
        podMetricsEndpoints: { port: string }[];
      };
    };
    for (const { spec: workload } of workloads) {
      expect(workload.template.metadata.labels).to.include(spec.selector.matchLabels);
    }
    const ports = spec.podMetricsEndpoints.map(({ port }) => port);
    for (const line of health())
      expect(
        ports.some((port) => line.includes(`\`${port}\``)),
        line,
      ).to.equal(true);
    expect(ports).to.have.length(health().length);
  });
});
