import { registryScenarios } from "../support/registries/scenarios.ts";
import { type Difference, differences, knownDifferences } from "./differences.ts";
import { madeComparable, notCompared } from "./talk.ts";
import { upstreamKinds } from "./upstreams.ts";
import { chapters } from "./workflows.ts";

const kinds = upstreamKinds.map(({ name }) => name);

/**
 * The text of docs/conformance.md. It follows from the workflows and from what is known to differ; that
 * nothing else does is what the tests show.
 */
export function renderReport(): string {
  return [
    introduction(),
    "## Registries\n",
    table(
      ["short", "what it is"],
      upstreamKinds.map(({ name, description }) => [name, description]),
    ),
    "\n## What differs\n",
    table(
      ["", "workflow", "registries", "differs in", "why"],
      differences.map((difference, index) => row(difference, index)),
    ),
    `\n## Every workflow\n\n${legend}`,
    ...chapters.map(({ title, workflows }) =>
      [
        `\n### ${title}\n`,
        table(
          ["workflow", ...kinds],
          workflows.map(({ name }) => [name, ...kinds.map((kind) => cell(title, name, kind))]),
        ),
      ].join("\n"),
    ),
    `\n## Registries as they are\n\n${peculiar}`,
    table(
      ["registry", "what is peculiar to it"],
      registryScenarios.map(({ name, peculiarities }) => [name, peculiarities.join("; ")]),
    ),
    "",
  ].join("\n");
}

const peculiar = `Well-known registries differ from the specification, and from each other. Test registries that behave like them, under their
real names, are pushed to, pulled from, mounted in, listed and deleted from through the proxy
([test](../test/proxy/registries.test.ts), [registries](../test/support/registries)). Their passwords go to where tokens come from, and nothing goes to where blobs lie.
`;

function introduction(): string {
  const count = chapters.reduce((sum, { workflows }) => sum + workflows.length, 0);
  const comparable = Object.entries(madeComparable).map(([name, how]) => `- \`${name}\`: ${how}`);
  return `# The registry protocol through the proxy

\`npm run test:conformance\` sends the requests of ${count} workflows, which are those of the OCI distribution specification 1.1 and
its conformance list, to a registry with its own login, and the same requests through the proxy, with the token of a volume, to another
registry of the same kind. Status, body and every header of every answer have to be equal; what the registry itself answers has to be
what the specification allows. What differs is listed here, with its reason, and nothing else may. \`WRITE_DOCS=1 npm run test:conformance\`
writes this file anew, and the tests compare it. A registry whose program is not on the machine is left out of a run.

Not compared are headers of the connection or the moment: ${notCompared.map((name) => `\`${name}\``).join(", ")}. Made comparable are

${comparable.join("\n")}
`;
}

const legend = "= is equal. A number is that of the difference above.\n";

const row = (
  { chapter, workflows, kinds: some, fields, reason }: Difference,
  index: number,
): readonly string[] => [
  String(index + 1),
  `${chapter}: ${workflows.join("; ")}`,
  some === undefined ? "all" : some.join(", "),
  fields === "its own" ? "the proxy's own answer" : fields.join(", "),
  reason,
];

function cell(chapter: string, workflow: string, kind: string): string {
  const known = knownDifferences(chapter, workflow, kind);
  return known.map((difference) => differences.indexOf(difference) + 1).join(", ") || "=";
}

function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((text) => text.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(headings), line(headings.map(() => "---")), ...rows.map(line)].join("\n");
}
