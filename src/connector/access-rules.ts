/**
 * What may be done with a connector's one account, beyond whether it may be used at all. The account's own rights are
 * up to the registry, and often wider than any one build needs.
 */
import { listOf, parseJson, property } from "./document.ts";
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

/** Who wants to do what in which repository. */
export interface AccessRequest {
  readonly action: Action;
  readonly repository: string;
  /** `system:serviceaccount:team-a:builder`, or another name that no ServiceAccount pattern but `**` fits. */
  readonly user: string;
}

/** Whether the rules allow a request. Without rules everything is allowed; with rules, only what one of them allows. */
export function isAllowed(
  rules: readonly AccessRule[] | undefined,
  request: AccessRequest,
): boolean {
  if (rules === undefined) return true;
  const [, namespace, name] = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(request.user) ?? [];
  const account = namespace === undefined ? request.user : `${namespace}/${name}`;
  return rules.some(
    ({ verbs, repositories, serviceAccounts }) =>
      allowsAction(verbs, request.action) &&
      repositories.some((pattern) => matches(pattern, request.repository)) &&
      serviceAccounts.some((pattern) => matches(pattern, account)),
  );
}

const allowsAction = (verbs: readonly Action[], action: Action): boolean =>
  verbs.includes(action) || (action === "pull" && verbs.includes("push"));

const patternForm = /^[A-Za-z0-9._*-]+(\/[A-Za-z0-9._*-]+)*$/;
const maxPatternLength = 255;

/** What a pattern looks like, for messages. */
export const patternRule =
  'a pattern such as "team-a/*" or "**": components of letters, digits and . _ -, "*" for any part of one, "**" for any number of them';

/** Whether a text is a valid pattern of repositories, tags or ServiceAccounts. */
export const isPattern = (text: string): boolean =>
  text.length <= maxPatternLength && patternForm.test(text);

/**
 * Whether a pattern matches a whole text, component by component.
 * @example
 * matches("team-a/*", "team-a/web"); // true
 * matches("team-a/*", "team-a/web/base"); // false
 * matches("team-a/**", "team-a/web/base"); // true
 */
export function matches(pattern: string, text: string): boolean {
  const fitsComponent = (part: string, component: string): boolean =>
    fits([...part], [...component], "*", (one, other) => one === other);
  return fits(pattern.split("/"), text.split("/"), "**", fitsComponent);
}

/**
 * Whether parts match items one by one, where `star` matches any number of items. Only the last star is ever retried,
 * so the time is at most parts times items, whatever the pattern.
 */
function fits(
  parts: readonly string[],
  items: readonly string[],
  star: string,
  fitsOne: (part: string, item: string) => boolean,
): boolean {
  let part = 0;
  let item = 0;
  let retry: { readonly part: number; item: number } | undefined;
  while (item < items.length) {
    if (parts[part] === star) {
      part += 1;
      retry = { part, item };
    } else if (part < parts.length && fitsOne(parts[part] ?? "", items[item] ?? "")) {
      part += 1;
      item += 1;
    } else if (retry !== undefined) {
      retry.item += 1;
      ({ part, item } = retry);
    } else return false;
  }
  return parts.slice(part).every((rest) => rest === star);
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
  const list = typeof value === "string" ? parseJson(value) : value;
  return Array.isArray(list) ? list : undefined;
}
