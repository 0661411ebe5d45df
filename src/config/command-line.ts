import { isIP, isIPv6 } from "node:net";
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
  /** What is wrong so far; readers of single values add to it. */
  readonly problems: Problem[];
}

/**
 * Reads long options that all take a value, and names everything that is wrong with them. An empty value is wrong, too:
 * it comes from a variable of a script that is not set, and as a folder it would mean the working directory.
 * @param args the arguments behind the command
 * @param defaults every option that there is, without its dashes, and its value unless given
 */
export function readCommandLine<Name extends string>(
  args: readonly string[],
  defaults: Readonly<Record<Name, string>>,
): CommandLine<Name> {
  const names = Object.keys(defaults);
  const options = Object.fromEntries(names.map((name) => [name, { type: "string" } as const]));
  // Not strict, since it would stop at the first mistake.
  const { tokens, positionals } = parseArgs({
    args: [...args],
    options,
    tokens: true,
    strict: false,
    allowPositionals: true,
  });
  const given = new Map<string, string[]>();
  const problems: Problem[] = [];
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const { name, rawName, value = "", inlineValue } = token;
    if (!names.includes(name)) {
      const known = names.map((option) => `--${option}`);
      const suggestion = didYouMean(rawName, [...known, "--help"]);
      problems.push(problem("option", rawName, `one of ${known.join(", ")}${suggestion}`));
    } else if (value === "" || (!inlineValue && value.startsWith("-"))) {
      problems.push(problem(rawName, value, "a value"));
    } else given.set(name, [...(given.get(name) ?? []), value]);
  }
  const texts = (name: Name): readonly string[] => given.get(name) ?? [defaults[name]];
  return { text: (name) => texts(name).at(-1) ?? "", texts, positionals, problems };
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
