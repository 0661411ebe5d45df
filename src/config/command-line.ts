import { isIP, isIPv6 } from "node:net";
import { parseArgs } from "node:util";
import { parseGoDurationSeconds } from "../connector/duration.ts";
import { didYouMean } from "../connector/nearest.ts";
import { type Problem, show } from "../connector/problem.ts";

/** The options and arguments of one command. */
export interface CommandLine<Name extends string, Switch extends string = never> {
  /** The value of an option: the one given last, or the default. */
  readonly text: (name: Name) => string;
  /** All values that were given, or the default. */
  readonly texts: (name: Name) => readonly string[];
  /** Whether an option without a value was given. */
  readonly has: (name: Switch) => boolean;
  readonly positionals: readonly string[];
  /** What is wrong so far; readers of single values add to it. */
  readonly problems: Problem[];
}

/**
 * Reads long options, and names everything that is wrong with them. An empty value is wrong, too: it comes from a
 * variable of a script that is not set, and as a folder it would mean the working directory.
 * @param args the arguments behind the command
 * @param defaults every option that takes a value, without its dashes, and its value unless given
 * @param switches every option that takes none
 */
export function readCommandLine<Name extends string, Switch extends string = never>(
  args: readonly string[],
  defaults: Readonly<Record<Name, string>>,
  switches: readonly Switch[] = [],
): CommandLine<Name, Switch> {
  const names = Object.keys(defaults);
  const options = Object.fromEntries([
    ...names.map((name) => [name, { type: "string" } as const] as const),
    ...switches.map((name) => [name, { type: "boolean" } as const] as const),
  ]);
  // Not strict, since it would stop at the first mistake.
  const { tokens, positionals } = parseArgs({
    args: [...args],
    options,
    tokens: true,
    strict: false,
    allowPositionals: true,
  });
  const given = new Map<string, string[]>();
  const switched = new Set<string>();
  const problems: Problem[] = [];
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const wrong = problemOf(token, names, switches);
    if (wrong !== undefined) problems.push(wrong);
    else if (token.value === undefined) switched.add(token.name);
    else given.set(token.name, [...(given.get(token.name) ?? []), token.value]);
  }
  const texts = (name: Name): readonly string[] => given.get(name) ?? [defaults[name]];
  return {
    text: (name) => texts(name).at(-1) ?? "",
    texts,
    has: (name) => switched.has(name),
    positionals,
    problems,
  };
}

/** An option as it stands on the command line. */
interface OptionToken {
  readonly name: string;
  /** With its dashes. */
  readonly rawName: string;
  readonly value: string | undefined;
  /** Whether the value stands behind a `=`. */
  readonly inlineValue: boolean | undefined;
}

function problemOf(
  { name, rawName, value, inlineValue }: OptionToken,
  names: readonly string[],
  switches: readonly string[],
): Problem | undefined {
  if (switches.includes(name)) {
    return value === undefined ? undefined : problem(rawName, value, "no value");
  }
  if (!names.includes(name)) {
    const known = [...names, ...switches].map((option) => `--${option}`);
    const suggestion = didYouMean(rawName, [...known, "--help"]);
    return problem("option", rawName, `one of ${known.join(", ")}${suggestion}`);
  }
  const isMissing = !value || (!inlineValue && value.startsWith("-"));
  return isMissing ? problem(rawName, value ?? "", "a value") : undefined;
}

/** Creates a problem with one part of a command line. @param found what stands there, which is shown */
export const problem = (path: string, found: unknown, wanted: string): Problem => ({
  path,
  found: show(found),
  wanted,
});

/** One address at which the proxy listens. */
export interface ListenSetting {
  readonly scheme: "http" | "https";
  /** A host name or an IP address without brackets. */
  readonly host: string;
  readonly port: number;
}

const listenPattern = /^(?:(https?):\/\/)?(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/;

/**
 * Reads addresses of the form `[http://|https://]HOST:PORT`, https unless given, one of each scheme at most.
 * @param option the name under which problems show
 */
export function readListenSettings(
  option: string,
  texts: readonly string[],
  problems: Problem[],
): readonly ListenSetting[] {
  const settings = texts.flatMap((text) => {
    const [, scheme = "https", ipv6, name, port] = listenPattern.exec(text) ?? [];
    const host = ipv6 ?? name;
    if (host === undefined || Number(port) > 65535 || (ipv6 !== undefined && !isIPv6(ipv6))) {
      problems.push(problem(option, text, "[http://|https://]HOST:PORT"));
      return [];
    }
    if (isUnspecified(host)) {
      const wanted = "an address that tools can connect to, since every file of a volume names it";
      problems.push(problem(option, text, wanted));
    }
    return [{ scheme: scheme === "http" ? "http" : "https", host, port: Number(port) } as const];
  });
  if (new Set(settings.map(({ scheme }) => scheme)).size < settings.length) {
    problems.push(problem(option, texts, "one http and one https address at most"));
  }
  return settings;
}

/** `0.0.0.0` and `::` stand for every address of the machine, and so for none that a tool could connect to. */
const isUnspecified = (host: string): boolean => isIP(host) !== 0 && /^[0.:]+$/.test(host);

/** The range in which a duration has to be, both ends included, in Go's form. */
export interface DurationRange {
  readonly min: string;
  readonly max: string;
}

/** Reads an option with a duration in Go's form. @returns seconds; 0 where it is out of range, which is a problem */
export function readSeconds<Name extends string>(
  { text, problems }: Pick<CommandLine<Name>, "text" | "problems">,
  name: Name,
  { min, max }: DurationRange,
): number {
  const value = parseGoDurationSeconds(text(name)) ?? Number.NaN;
  const isInRange =
    value >= (parseGoDurationSeconds(min) ?? 0) && value <= (parseGoDurationSeconds(max) ?? 0);
  if (isInRange) return value;
  const wanted = `a duration from ${min} to ${max}, such as 1h30m`;
  problems.push(problem(`--${name}`, text(name), wanted));
  return 0;
}

/** How a command prints what it lists: for people, or as JSON for programs. */
export type OutputFormat = "text" | "json";

const outputFormats: readonly OutputFormat[] = ["text", "json"];

/** Reads `--output`. @returns text where it is neither, which is a problem */
export function readOutputFormat({
  text,
  problems,
}: Pick<CommandLine<"output">, "text" | "problems">): OutputFormat {
  const format = outputFormats.find((known) => known === text("output"));
  if (format !== undefined) return format;
  problems.push(problem("--output", text("output"), outputFormats.join(" or ")));
  return "text";
}
