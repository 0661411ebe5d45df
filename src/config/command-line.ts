import { parseArgs } from "node:util";
import { type Problem, show } from "../connector/problem.ts";
import { didYouMean } from "./nearest.ts";

/** The options and arguments of one command. */
export interface CommandLine<Name extends string> {
  /** The value of an option: the one given last, or the default. */
  readonly text: (name: Name) => string;
  /** All values that were given, or the default. */
  readonly texts: (name: Name) => readonly string[];
  readonly positionals: readonly string[];
  /** What is wrong so far. */
  readonly problems: Problem[];
}

/**
 * Reads long options that all take a value, and names everything that is wrong with them. An empty
 * value is wrong, too: it is a variable of a script that is not set, and as a folder it would be the
 * one that the script happens to run in.
 */
export function readCommandLine<Name extends string>(
  args: readonly string[],
  defaults: Readonly<Record<Name, string>>,
): CommandLine<Name> {
  const names = Object.keys(defaults);
  const options = Object.fromEntries(names.map((name) => [name, { type: "string" } as const]));
  // Not strict, since it would stop at the first mistake.
  const { tokens, positionals } = parseArgs({
    ...{ args: [...args], options, tokens: true },
    ...{ strict: false, allowPositionals: true },
  });
  const given = new Map<string, string[]>();
  const problems: Problem[] = [];
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const { name, rawName, value = "", inlineValue } = token;
    if (!names.includes(name)) {
      const known = names.map((option) => `--${option}`);
      const meant = didYouMean(rawName, [...known, "--help"]);
      problems.push(problem("option", rawName, `one of ${known.join(", ")}${meant}`));
    } else if (value === "" || (!inlineValue && value.startsWith("-"))) {
      problems.push(problem(rawName, value, "a value"));
    } else given.set(name, [...(given.get(name) ?? []), value]);
  }
  const texts = (name: Name): readonly string[] => given.get(name) ?? [defaults[name]];
  return { text: (name) => texts(name).at(-1) ?? "", texts, positionals, problems };
}

/** What is wrong with one part of a command line. */
export const problem = (path: string, found: unknown, wanted: string): Problem => ({
  path,
  found: show(found),
  wanted,
});
