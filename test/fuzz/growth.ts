import { expect } from "chai";
import fc from "fast-check";
import {
  maxPatternBytes,
  maxPatterns,
  parseAccessRules,
} from "../../src/connector/access-rules.ts";
import { isPattern, PatternSet } from "../../src/connector/pattern-set.ts";
import { parseRegistryAddress } from "../../src/connector/registry-address.ts";
import { attempt } from "../../src/error-code.ts";
import { clientLink } from "../../src/proxy/relay/client-link.ts";
import {
  countParameters,
  joinQueries,
  maxQueryBytes,
  parameter,
  parameterNames,
  withoutParameters,
} from "../../src/proxy/request/query.ts";
import {
  parseRequestTarget,
  type RepositoryTarget,
} from "../../src/proxy/request/request-target.ts";
import { readFolderDocuments } from "../../src/standalone/folder-documents.ts";
import { parseChallenges } from "../../src/upstream/challenge.ts";
import type { FuzzProperty } from "./property.ts";

/**
 * Whatever is repeated or nested, and as large as it gets in: an input of twice the size costs at most 2.5 times the CPU
 * time.
 */
export const growth: FuzzProperty = {
  name: "growth",
  start: async () => ({
    inputsPerRun,
    stop: () => undefined,
    check: async ({ seed, numRuns }) => {
      for (const example of examples) judge({ ...example, halvings: 2 });
      fc.assert(fc.property(inputs, judge), { seed, numRuns });
    },
  }),
};

/** A run reads an input and its double, each several times. */
const inputsPerRun = 10;

const mostGrowth = 2.5;
/** Something else on the machine may make any measurement larger, and none smaller; so one that is small enough counts. */
const attempts = 4;
/** Measurements of each size in an attempt, of which the smallest counts. */
const measurements = 3;
/** What is shorter than that, in microseconds of CPU time, is done again and again: a clock can't tell it. */
const shortestMicroseconds = 2_000;

/** A way in for what others write, and as much as gets in by it. */
interface Reader {
  /** In bytes, or in characters that are ASCII all but always. */
  readonly mostBytes: number;
  /** Makes the input of so many repetitions of a piece. */
  make(piece: string, times: number, isNested: boolean): string;
  /** Reads it; an error is an answer, too. */
  read(input: string): unknown;
}

interface Input {
  readonly kind: string;
  readonly piece: string;
  readonly isNested: boolean;
  /** How often the size is halved, from as large as it gets in. */
  readonly halvings: number;
}

function judge({ kind, piece, isNested, halvings }: Input): void {
  const reader = readers[kind];
  if (reader === undefined) throw new TypeError(kind);
  const most = Math.floor(reader.mostBytes / 2 ** halvings);
  const times = Math.floor(most / (2 * Math.max(1, piece.length)));
  const once = reader.make(piece, times, isNested);
  const twice = reader.make(piece, 2 * times, isNested);
  let ratio = Number.POSITIVE_INFINITY;
  for (let number = 1; number <= attempts && ratio > mostGrowth; number += 1) {
    ratio = growthOf(
      () => reader.read(once),
      () => reader.read(twice),
      measurements * number,
    );
  }
  expect(ratio, `${kind}: twice the input costs so much more`).to.be.at.most(mostGrowth);
}

/** How much more CPU time one thing takes than another: the smallest of some measurements, which take turns. */
function growthOf(once: () => unknown, twice: () => unknown, count: number): number {
  const repetitions = repetitionsOf(once);
  let [least, most] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let number = 0; number < count; number += 1) {
    least = Math.min(least, costOf(once, repetitions));
    most = Math.min(most, costOf(twice, repetitions));
  }
  return most / least;
}

function repetitionsOf(act: () => unknown): number {
  let repetitions = 1;
  while (costOf(act, repetitions) < shortestMicroseconds) repetitions *= 4;
  return repetitions;
}

/** CPU time of this process, in microseconds. */
function costOf(act: () => unknown, repetitions: number): number {
  const before = process.cpuUsage();
  for (let number = 0; number < repetitions; number += 1) attempt(act, () => undefined);
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

const kibibyte = 1024;
const registry = parseRegistryAddress("https://registry.test/base", "address");
const target = parseRequestTarget(
  "/v2/namespaces/team-a/connectors/harbor/app/tags/list",
) as RepositoryTarget;
const requested = new URL("https://registry.test/base/v2/app/tags/list");

/** Opens a piece so many times, and closes it as often. */
function nest(piece: string, times: number, brackets: readonly [string, string]): string {
  const [open, close] = brackets;
  const depth = Math.floor((times * piece.length) / (open.length + close.length));
  return `${open.repeat(depth)}${piece}${close.repeat(depth)}`;
}

const readers: Readonly<Record<string, Reader>> = {
  documents: {
    mostBytes: 256 * kibibyte, // of 1 MiB, which takes too long for many runs
    make: (piece, times, isNested) =>
      isNested ? nest(piece, times, ["[", "]"]) : piece.repeat(times),
    read: readFolderDocuments,
  },
  "documents with a value": {
    mostBytes: 256 * kibibyte,
    make: (piece, times) =>
      JSON.stringify({
        apiVersion: "connectors.alauda.io/v1alpha1",
        kind: "Connector",
        metadata: { name: "harbor", namespace: "team-a" },
        spec: {
          connectorClassName: "oci",
          address: "https://registry.test",
          params: ["immutableTags", "allowedRealmHosts", "rules", "redirects"].map((name) => ({
            name,
            value: piece.repeat(times / 4),
          })),
        },
      }),
    read: readFolderDocuments,
  },
  rules: {
    mostBytes: maxPatternBytes,
    make(piece, times) {
      const text = piece.replace(/[^A-Za-z0-9._*/-]/g, "*");
      const pattern = text
        .repeat(Math.ceil(60 / text.length))
        .replace(/\/+/g, "/")
        .slice(0, 60);
      const count = Math.min(maxPatterns, Math.ceil((times * piece.length) / 60));
      const repositories = Array.from({ length: count }, (_, index) => `${pattern}${index}`);
      return JSON.stringify([{ verbs: ["pull"], repositories }]);
    },
    read(input) {
      const rules = parseAccessRules(input, "value");
      const patterns = rules.ok ? rules.value.flatMap(({ repositories }) => repositories) : [];
      return new PatternSet(patterns.filter(isPattern)).matches("a/".repeat(120));
    },
  },
  queries: {
    mostBytes: maxQueryBytes,
    make: (piece, times) => piece.repeat(times),
    read(query) {
      attempt(
        () => parseRequestTarget(`/v2/app/tags/list?${query}`),
        () => undefined,
      );
      const own = withoutParameters(query, ["last", "mount"]);
      const added = withoutParameters(query, parameterNames(own));
      return [joinQueries(own, added), parameter(query, "digest"), countParameters(query)];
    },
  },
  challenges: {
    mostBytes: 64 * kibibyte,
    make: (piece, times, isNested) =>
      isNested ? `Bearer realm=${nest(piece, times, ['"', "\\"])}` : piece.repeat(times),
    read: parseChallenges,
  },
  links: {
    mostBytes: 64 * kibibyte,
    make: (piece, times, isNested) =>
      isNested ? nest(piece, times, ["<", ">"]) : piece.repeat(times),
    read: (link) => registry.ok && clientLink(link, requested, target, registry.value),
  },
};

/** What the readers look for, and what they don't. */
const words = fc.constantFrom(
  "a",
  "*",
  "**",
  "/",
  "=",
  "&",
  "%",
  "%61",
  "+",
  ";",
  ",",
  ", ",
  " ",
  "\t",
  "<",
  ">",
  "<a>",
  '"',
  "\\",
  '\\"',
  "rel=next",
  '; rel="next"',
  "Bearer ",
  "realm",
  'realm="https://a.test"',
  "[",
  "]",
  "{",
  "}",
  "- ",
  "? ",
  ": ",
  "a: ",
  "&a ",
  "*a ",
  "\n",
  "\n ",
  "---\n",
  "!!binary ",
  "#",
  "'",
  "|\n",
  "\u00fc",
);
const inputs: fc.Arbitrary<Input> = fc.record({
  kind: fc.constantFrom(...Object.keys(readers)),
  piece: fc.array(words, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("")),
  isNested: fc.boolean(),
  halvings: fc.integer({ min: 0, max: 2 }),
});

/** What each reader may find dearest, and what was found to be. */
const examples: readonly Omit<Input, "halvings">[] = [
  { kind: "documents", piece: "a: ", isNested: true },
  { kind: "documents", piece: "- &a *a\n", isNested: false },
  { kind: "documents with a value", piece: "a,", isNested: false },
  { kind: "rules", piece: "**/a/", isNested: false },
  { kind: "queries", piece: "%61=&", isNested: false },
  { kind: "challenges", piece: 'realm="\\', isNested: false },
  { kind: "links", piece: '<a>\\"', isNested: false }, // a quote that each link begins, and none ends
  { kind: "links", piece: "<a>; rel=next,", isNested: false },
];
