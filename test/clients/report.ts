import { listItem, paragraph, table } from "../support/markdown.ts";
import {
  type Example,
  type Operation,
  type OtherOperation,
  otherOperations,
  readExample,
  type Step,
  type Transport,
  transports,
} from "./example.ts";
import { type Tool, tools } from "./tools.ts";
import { untestedTools } from "./untested-tools.ts";

/** What can be shown of a tool. */
export type Achievement = Operation | OtherOperation | "large-layers" | "forward";

/** What came of a tool. */
export interface Result {
  readonly version: string;
  readonly achieved: ReadonlyMap<Step | Achievement, ReadonlySet<Transport>>;
  /** What it says without a login. */
  readonly refusal: string;
}

/** What the steps of an example, and layers of 200 MiB, are called in the tables. */
const names: readonly (readonly [step: Step | Achievement, name: string])[] = [
  ["volume", "the volume"],
  ["daemon", "the daemon"],
  ["setup", "every command"],
  ["push", "push"],
  ["pull", "pull"],
  ["index", "several platforms"],
  ["mount", "mount"],
  ["cache", "cache"],
  ["referrer", "referrers"],
  ["large-layers", "200 MiB layers"],
  ["pull-own-name", "pull by own name"],
  ["push-own-name", "push by own name"],
  ["forward", "forward proxy"],
  ...otherOperations.map((operation) => [operation, operation.replaceAll("-", " ")] as const),
];
const notInColumns: readonly string[] = ["volume", "daemon", "setup", "cache", ...otherOperations];
const columns = names.filter(([step]) => !notInColumns.includes(step));

/**
 * The text of docs/clients.md.
 * @param system where the results are from, since the system has some of the tools
 */
export function renderReport(results: ReadonlyMap<Tool, Result>, system: string): string {
  const rows = tools.filter(pullsImages).map((tool) => {
    const { version, achieved } = resultOf(results, tool);
    const cells = columns.map(([step]) => shown(achieved.get(step)));
    return [`[${tool.name}](../examples/${tool.name}) ${version}`, ...cells];
  });
  const untested = untestedTools.map(({ name, why }) => [
    `[${name}](#${name.split(/\W/)[0]})`,
    `untested: ${why}`,
    ...columns.slice(1).map(() => ""),
  ]);
  const headings = ["tool", ...columns.map(([, name]) => name)];
  return [
    introduction(system),
    table(headings, [...rows, ...untested]),
    meanings,
    "These are run, too:\n",
    `${otherTable(results)}\n`,
    partialPulls,
    "## What each tool needs\n",
    variables,
    ...[...Map.groupBy(tools, ({ name }) => name)].map(([name, versions]) =>
      section(name, versions, results),
    ),
    readOnlyVolumes,
    "## Untested\n",
    ...untestedTools.map(({ name, notes }) => `### ${name}\n\n${list(notes)}`),
  ].join("\n");
}

/** Others, such as cosign, stand in the table of what single tools do. */
const pullsImages = ({ expectPulled }: Tool): boolean => expectPulled !== undefined;

/** What single tools do beside that. */
const otherTable = (results: ReadonlyMap<Tool, Result>): string =>
  table(
    ["tool", "what it does", "over"],
    tools.flatMap((tool) =>
      (tool.others ?? []).map(({ operation, what }) => {
        const { version, achieved } = resultOf(results, tool);
        return [
          `[${tool.name}](../examples/${tool.name}) ${version}`,
          what,
          shown(achieved.get(operation)),
        ];
      }),
    ),
  );

function resultOf(results: ReadonlyMap<Tool, Result>, tool: Tool): Result {
  const result = results.get(tool);
  if (result === undefined) throw new Error(`${tool.name} has not been run`);
  return result;
}

const introduction = (system: string): string =>
  [
    "# Which tools work, and what they need\n",
    paragraph(`
      \`npm run test:clients\` makes this page from what it sees, and compares it each time.
      \`WRITE_DOCS=1 npm run test:clients\` writes it again. Every tool runs the commands in its folder of
      [examples](../examples), with a mounted volume and nothing else, against a registry that demands tokens
      (docker-registry 2.8). What the tool has stored is then read from the registry itself and compared digest by
      digest.`),
    // On a line of its own, since the tests look for the name of the system.
    `This is from ${system}.\n`,
  ].join("\n");

const meanings = [
  "",
  paragraph(`
    TLS is always verified. *Several platforms*: an image index is pushed. *Mount*: layers get from one repository
    into another without an upload. *Referrers*: an artifact is attached to an image and found again, with
    docker-registry 2.8, distribution 3 (by the fallback tag) and an OCI 1.1 registry (by its API). *By own name*: the
    image keeps the name that the registry's own users have for it. *Forward proxy*: a base image is pulled from one
    registry, and the result is pushed to another, both by their own names, with two connectors in one volume and only
    [its \`.env\`](forward-proxy.md). –: this version of the tool cannot do it, or not through a proxy.`),
].join("\n");

const partialPulls = paragraph(`
  Partial pulls (\`zstd:chunked\`, on by default in podman 5) are run by the library of podman, buildah and skopeo in its
  version 5.42: it requests many ranges of a layer at once, and fewer where the registry's storage answers 400 to so
  many ([test](../test/clients/partial-pull.test.ts)).`);

const variables = paragraph(`
  \`$VOLUME\` is where the volume is mounted, \`$PROXY\` the proxy's host and port. What has no row needs only what
  every command needs.`);

/** A test of `oci-connector run` compares what buildah says with this. */
export const readOnlyVolumes: string = [
  "## A volume that no tool can write to\n",
  paragraph(`
    The volume of \`oci-connector run\`, one of \`mount --read-only\`, and a Pod's are read-only for root, too. To log in
    or out fails then, and nothing is lost. \`buildah logout\`, \`podman logout\` and \`skopeo logout\` say:`),
  [
    "```text",
    'logging out of "$PROXY": 1 error occurred:',
    '* writing to file "$VOLUME/config.json": open $VOLUME/.tmp-config.json…: read-only file system',
    "```\n",
  ].join("\n"),
  paragraph(`
    \`docker buildx\` keeps its builders in \`BUILDX_CONFIG\`, which \`run\` sets to a folder of the job's own, and else in
    the folder of \`DOCKER_CONFIG\`: name another folder to it beside a volume of \`mount\`.`),
].join("\n");

const shown = (over: ReadonlySet<Transport> | undefined): string => {
  if (over === undefined) return "–";
  return transports
    .filter((transport) => over.has(transport))
    .map((transport) => transport.toUpperCase())
    .join(", ");
};

function section(
  name: string,
  versions: readonly Tool[],
  results: ReadonlyMap<Tool, Result>,
): string {
  const found = versions.map((tool) => resultOf(results, tool));
  const refusals = new Set(found.map(({ refusal }) => refusal));
  const notes = versions.flatMap((tool) => tool.notes);
  return [
    `### ${name} ${found.map(({ version }) => version).join(", ")}\n`,
    needsTable(readExample(name)),
    "\nWithout the volume's login it says:\n",
    ["```text", ...refusals, "```"].join("\n"),
    ...(notes.length === 0 ? [] : [`\n${list(notes).trimEnd()}`]),
    "",
  ].join("\n");
}

const list = (notes: readonly string[]): string => notes.map(listItem).join("");

/** A table of the options and variables by which the tool learns of the volume and the proxy. */
export const needsTable = (example: Example): string =>
  table(["for", "over TLS", "over HTTP"], needs(example));

/** What has commands in an example. */
const isStep = (step: Step | Achievement): step is Step =>
  step !== "large-layers" && step !== "forward";

/** Steps that need the same share a row. */
function needs(example: Example): readonly (readonly string[])[] {
  const rows = new Map<string, { readonly steps: string[]; readonly cells: readonly string[] }>();
  for (const [step, name] of names) {
    if (!isStep(step)) continue;
    const [tls = "", http = ""] = transports.map((transport) => example.commands(step, transport));
    if (tls + http === "") continue;
    const relevant = step === "volume" ? /configuration|params/ : /[$](VOLUME|PROXY)|http|tls/;
    const [overTls, overHttp] = [wordsIn(tls, relevant), wordsIn(http, relevant)];
    if (overTls + overHttp === "") continue;
    const cells = [
      cellOf(tls, overTls),
      cellOf(http, overTls === overHttp ? "the same" : overHttp),
    ];
    const key = cells.join("|");
    const row = rows.get(key) ?? { steps: [], cells };
    row.steps.push(name);
    rows.set(key, row);
  }
  return [...rows.values()].map(({ steps, cells }) => [steps.join(", "), ...cells]);
}

/** @param commands none, where a tool can't do this over a transport */
const cellOf = (commands: string, words: string): string =>
  commands === "" ? "–" : words || "nothing";

/** Options with their values, variables that are set, and links, as far as they match. */
function wordsIn(commands: string, relevant: RegExp): string {
  const found = commands
    .replaceAll("\\\n", " ")
    .split("\n")
    .flatMap((line) => optionsIn(line.match(/'[^']*'|\S+/g) ?? []))
    .filter((word) => relevant.test(word));
  return [...new Set(found)].map((word) => `\`${word}\``).join(" ");
}

function optionsIn(words: readonly string[]): readonly string[] {
  if (words[0] === "ln") return [words.join(" ")];
  return words.flatMap((word, index) => {
    if (/^[A-Z_]+=/.test(word)) return [word];
    if (!word.startsWith("--")) return [];
    const next = words[index + 1] ?? "";
    return [isValue(next) && !word.includes("=") ? `${word} ${next}` : word];
  });
}

/** Everything else that stands behind an option in the examples is an image or a file. */
const isValue = (word: string): boolean =>
  /^'|^[$](VOLUME|PROXY)|^(docker-config|containerd)/.test(word);
