import { type AccessRule, type Action, actions, isPattern, patternRule } from "./access-rules.ts";
import { listOf, property } from "./document.ts";
import { type Checked, type Problem, show } from "./problem.ts";

const known = ["verbs", "repositories", "serviceAccounts"];
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
      if (known.some((other) => other === key)) continue;
      problems.push({ path: at, found: show(key), wanted: known.join(", ") });
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
  const verbs = given.flatMap((verb) => actions.find((action) => action === verb) ?? []);
  if (verbs.length === given.length && given.length > 0) return verbs;
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
  if (typeof value !== "string") return Array.isArray(value) ? value : undefined;
  try {
    const parsed: unknown = JSON.parse(value);
    return Array.isArray(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}
