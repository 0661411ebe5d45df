/**
 * What may be done with a connector's one account, beyond whether it may be used at all. The account's own rights are
 * up to the registry, and often wider than any one build needs.
 */
import { listOf, parseJson, property } from "./document.ts";
import { isPattern, patternRule } from "./pattern-set.ts";
import { type Checked, type Problem, show } from "./problem.ts";

/** What a request does to a repository. */
export type Action = "pull" | "push" | "delete";

/** All actions, in the order in which messages list them. */
export const actions: readonly Action[] = ["pull", "push", "delete"];

/** A rule that allows actions in repositories to ServiceAccounts. */
export interface AccessRule {
  /** The allowed actions. `push` includes `pull`, since a push has to look at what is there. */
  readonly verbs: readonly Action[];
  /** Patterns, in which `*` matches any part of one component, and `**` any number of components. */
  readonly repositories: readonly string[];
  /** Patterns of `namespace/name`. */
  readonly serviceAccounts: readonly string[];
}

/** More than anybody writes by hand, and few enough to be compiled and kept for every connector. */
export const maxPatterns = 1_000;
/** The most bytes that the patterns of one parameter may have together. */
export const maxPatternBytes: number = 64 * 1024;

/** Whether patterns are more, or longer together, than {@link maxPatterns} and {@link maxPatternBytes}. */
export const isExcessive = (patterns: readonly string[]): boolean =>
  patterns.length > maxPatterns || bytesOf(patterns) > maxPatternBytes;

const bytesOf = (patterns: readonly string[]): number =>
  patterns.reduce((sum, pattern) => sum + pattern.length, 0);

/** All patterns of rules, but for the one that a rule without serviceAccounts gets. */
export const patternsOfRules = (rules: readonly AccessRule[]): readonly string[] =>
  rules.flatMap(({ repositories, serviceAccounts }) =>
    serviceAccounts.join() === anybody.join()
      ? repositories
      : [...repositories, ...serviceAccounts],
  );

/**
 * What is wrong with the number or the size of patterns; undefined where nothing is. They work for now, and the next
 * release refuses them.
 * @param path of the parameter's value
 */
export function patternExcess(patterns: readonly string[], path: string): Problem | undefined {
  if (!isExcessive(patterns)) return undefined;
  return {
    path,
    found: `${patterns.length} patterns of ${bytesOf(patterns)} bytes`,
    wanted: `at most ${maxPatterns} patterns of ${maxPatternBytes} bytes together`,
  };
}

const ruleFields = ["verbs", "repositories", "serviceAccounts"];

const anybody = ["**"];

/**
 * Reads the parameter `rules`: a list, or its JSON text, of
 * `{verbs: [pull, push, delete], repositories: ["team-a/**"], serviceAccounts: ["team-a/*"]}`, where a rule
 * without serviceAccounts holds for everybody.
 * @param path of the parameter's value
 */
export function parseAccessRules(value: unknown, path: string): Checked<readonly AccessRule[]> {
  const problems: Problem[] = [];
  const list = asList(value);
  if (list === undefined) {
    const wanted = 'a list of rules: [{verbs: [pull], repositories: ["team-a/**"]}]';
    return { ok: false, problems: [{ path, found: show(value), wanted }] };
  }
  const rules = list.map((rule, index): AccessRule => {
    const at = `${path}.${index}`;
    const keys = typeof rule === "object" && rule !== null ? Object.keys(rule) : [rule];
    for (const key of keys) {
      if (ruleFields.some((other) => other === key)) continue;
      problems.push({ path: at, found: show(key), wanted: ruleFields.join(", ") });
    }
    return {
      verbs: verbsOf(property(rule, "verbs"), `${at}.verbs`, problems),
      repositories: patternsOf(property(rule, "repositories"), `${at}.repositories`, problems),
      serviceAccounts: patternsOf(
        property(rule, "serviceAccounts") ?? anybody,
        `${at}.serviceAccounts`,
        problems,
      ),
    };
  });
  return problems.length > 0 ? { ok: false, problems } : { ok: true, value: rules };
}

/** Reads the parameter `immutableTags`: a list, its JSON text, or a text with commas, of patterns. */
export function parseTagPatterns(value: unknown, path: string): Checked<readonly string[]> {
  const problems: Problem[] = [];
  const words = typeof value === "string" ? value.split(",").map((word) => word.trim()) : undefined;
  const patterns = patternsOf(asList(value) ?? words, path, problems);
  return problems.length > 0 ? { ok: false, problems } : { ok: true, value: patterns };
}

function verbsOf(value: unknown, path: string, problems: Problem[]): readonly Action[] {
  const given = listOf(value);
  const verbs = actions.filter((action) => given.includes(action));
  const isValid = given.every((verb) => actions.some((action) => action === verb));
  if (isValid && given.length > 0) return verbs;
  problems.push({ path, found: show(value), wanted: `one or more of ${actions.join(", ")}` });
  return [];
}

function patternsOf(value: unknown, path: string, problems: Problem[]): readonly string[] {
  const given = listOf(value);
  const right = given.flatMap((text) => (typeof text === "string" && isPattern(text) ? text : []));
  if (right.length === given.length && given.length > 0) return right;
  problems.push({ path, found: show(value), wanted: `a list of patterns, each ${patternRule}` });
  return [];
}

function asList(value: unknown): readonly unknown[] | undefined {
  const list = typeof value === "string" ? parseJson(value) : value;
  return Array.isArray(list) ? list : undefined;
}
