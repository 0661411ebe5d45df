import { forRegistries, prefixesForRegistries } from "../../src/proxy/relay/upstream-request.ts";
import { listItem, paragraph, table } from "../support/markdown.ts";
import { oddRegistries } from "../support/registries/odd-registries.ts";
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
      ["no.", "workflow", "registries", "differs in", "why"],
      differences.map((difference, index) => row(difference, index)),
    ),
    `\n## What a request may have\n\n${requestRules()}`,
    `## Every workflow\n\n${legend}`,
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
    `\n## Odd registries\n\n${odd}`,
    table(
      ["what the registry does", "directly", "through the proxy", "test"],
      oddRegistries.map(({ does, directly, throughProxy, test }) => [
        does,
        directly,
        throughProxy,
        `[${test.replace(/^.*\/|\.test\.ts$/g, "")}](../test/${test})`,
      ]),
    ),
    "",
  ].join("\n");
}

const peculiar = paragraph(`
  Well-known registries differ from the specification, and from each other. Test registries that behave like them are
  used through the proxy under their real names: images are pushed, pulled, mounted, listed and deleted
  ([test](../test/proxy/registries.test.ts), [registries](../test/support/registries)). A password goes
  to the host that gives tokens, and no credential to the host that stores blobs.`);

const odd = paragraph(`
  Registries, and what stands before them, also behave in ways that are nobody's peculiarity, but that people have met. Each
  row has a test of the same name ([registries](../test/support/registries/odd-registries.ts)).`);

function introduction(): string {
  const count = chapters.reduce((sum, { workflows }) => sum + workflows.length, 0);
  const comparable = Object.entries(madeComparable).map(([name, how]) =>
    listItem(`\`${name}\`: ${how}`),
  );
  const left = notCompared.map((name) => `\`${name}\``).join(", ");
  return [
    "# The registry protocol through the proxy\n",
    paragraph(`
      \`npm run test:conformance\` runs ${count} workflows, which are those of the OCI distribution specification 1.1 and
      its conformance list. It sends the requests of each to a registry with the registry's own login, and the same
      requests through the proxy, with the token of a volume, to another registry of the same kind. Status, body and
      every header of every response must be equal, and the registry's own response must be one that the specification
      allows. The differences are listed here, each with its reason; any other difference fails the tests.
      \`WRITE_DOCS=1 npm run test:conformance\` writes this file again, and the tests compare it. A registry whose
      program is not on the machine is left out of a run.`),
    paragraph(`
      Headers that belong to the connection or to the moment are not compared: ${left}. These are made comparable:`),
    comparable.join(""),
  ].join("\n");
}

/** What the proxy asks of every request, and what of it goes on to the registry. */
const requestRules = (): string =>
  [
    paragraph(
      "A request that a registry could read in another way than the proxy does is refused with 400:",
    ),
    [
      "`Host` must be a host as RFC 9112 (3.2) has it: a name or an address, with a port at most. An empty one is valid if the path names the connector.",
      "A query has at most 8 KiB (else 414) and 64 parameters.",
      "A query must not have a `;`, since some servers begin a new parameter there. In a value it is written `%3B`.",
    ]
      .map(listItem)
      .join(""),
    paragraph(`
      These headers of a client go on to the registry, and no others: ${registryHeaders}. Its \`User-Agent\` stands
      behind that of the proxy. What some servers obey (\`X-HTTP-Method-Override\`, \`X-Original-URL\`,
      \`X-Forwarded-*\`, \`Remote-User\`) does not. A host that stores blobs gets only \`accept\`,
      \`accept-encoding\`, \`range\` and \`if-range\`.`),
    paragraph(`
      An error or a header of the registry that shows the connector's password or its token becomes a 502: as it is, in
      base64, percent-encoded, hexadecimal or in JSON, also under gzip, deflate, br or zstd, and also in a \`Link\`, in
      \`Docker-Content-Digest\` and in the host of a redirect. Blobs, manifests and lists are not searched, and neither
      are secrets of fewer than 8 characters, and passwords of one word of fewer than 16 letters in plain text.`),
  ].join("\n");

const registryHeaders = [
  "accept",
  ...prefixesForRegistries.map((prefix) => `${prefix}*`),
  ...forRegistries,
]
  .map((name) => `\`${name}\``)
  .join(", ");

const legend = "= means equal. A number is the number of a difference above.";

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
