import { LRUCache } from "lru-cache";
import { type AccessRule, type Action, isExcessive, patternsOfRules } from "./access-rules.ts";
import { matchesEverything, PatternSet } from "./pattern-set.ts";

/** Who wants to do what in which repository. */
export interface AccessRequest {
  readonly action: Action;
  /** Empty for the list of all repositories. */
  readonly repository: string;
  /** `system:serviceaccount:team-a:builder`, or another name that no ServiceAccount pattern but `**` matches. */
  readonly user: string;
}

/**
 * Spends work on patterns that are more than a connector may have ({@link isExcessive}). Nothing is spent on others, whose
 * work is bounded, or for a verdict that is remembered.
 * @param operations some nanoseconds each
 * @throws what the caller wants where there is no work left to spend
 */
export type SpendWork = (operations: number) => void;

const anyWork: SpendWork = () => undefined;

/** Whether the rules allow a request. Without rules everything is allowed; with rules, only what one of them allows. */
export function isAllowed(
  rules: readonly AccessRule[] | undefined,
  request: AccessRequest,
  spend: SpendWork = anyWork,
): boolean {
  if (rules === undefined) return true;
  const known = compiledRules.get(rules) ?? remember(compiledRules, rules, compileRules, spend);
  const { action, repository, user } = request;
  return verdict(known, `${action} ${repository} ${user}`, () => {
    const account = accountOf(user);
    if (known.isExcessive) {
      const { repositories, accounts } = known;
      spend(repositories.words * repository.length + accounts.words * account.length);
    }
    return matchesRule(rules, known, { action, repository, user: account });
  });
}

/** Whether a tag matches one of the patterns of `immutableTags`. */
export function matchesTag(
  patterns: readonly string[],
  tag: string,
  spend: SpendWork = anyWork,
): boolean {
  const known = compiledTags.get(patterns) ?? remember(compiledTags, patterns, compileTags, spend);
  return verdict(known, tag, () => {
    if (known.isExcessive) spend(known.tags.words * tag.length);
    return known.tags.matches(tag);
  });
}

/** What is known of the patterns of one connector. */
interface Compiled {
  /** What it takes up in memory, with all verdicts that it may remember. */
  readonly bytes: number;
  readonly isExcessive: boolean;
  /** By what was asked. They follow from the patterns alone, and so never change. */
  readonly verdicts: LRUCache<string, boolean>;
}

interface CompiledRules extends Compiled {
  readonly repositories: PatternSet;
  /** By pattern: the index of its rule. */
  readonly rulesOfRepositories: readonly number[];
  readonly accounts: PatternSet;
  readonly rulesOfAccounts: readonly number[];
  /** The rules that are for all repositories. */
  readonly rulesForAll: readonly number[];
}

interface CompiledTags extends Compiled {
  readonly tags: PatternSet;
}

/** Characters of the questions whose verdicts are remembered for a connector: a hundred of the longest, thousands of usual ones. */
const maxVerdictCharacters = 64 * 1024;
/** Of all connectors together. One with the most patterns takes some 600 KiB; one that is not here is compiled again. */
const maxCompiledBytes = 32 * 1024 * 1024;

const compiledRules = new LRUCache<readonly AccessRule[], CompiledRules>({
  maxSize: maxCompiledBytes,
  sizeCalculation: ({ bytes }) => bytes,
});
const compiledTags = new LRUCache<readonly string[], CompiledTags>({
  maxSize: maxCompiledBytes,
  sizeCalculation: ({ bytes }) => bytes,
});

function remember<K extends object, V extends Compiled>(
  cache: LRUCache<K, V>,
  patterns: K,
  compile: (patterns: K, spend: SpendWork) => V,
  spend: SpendWork,
): V {
  const compiled = compile(patterns, spend);
  cache.set(patterns, compiled);
  return compiled;
}

function compileRules(rules: readonly AccessRule[], spend: SpendWork): CompiledRules {
  const written = patternsOfRules(rules);
  const base = beginCompiled(written, spend);
  const repositories = new PatternSet(rules.flatMap((rule) => rule.repositories));
  const accounts = new PatternSet(rules.flatMap((rule) => rule.serviceAccounts));
  return {
    ...base,
    bytes: base.bytes + repositories.bytes + accounts.bytes,
    repositories,
    rulesOfRepositories: rules.flatMap((rule, index) => rule.repositories.map(() => index)),
    accounts,
    rulesOfAccounts: rules.flatMap((rule, index) => rule.serviceAccounts.map(() => index)),
    rulesForAll: rules.flatMap((rule, index) =>
      rule.repositories.some(matchesEverything) ? index : [],
    ),
  };
}

function compileTags(patterns: readonly string[], spend: SpendWork): CompiledTags {
  const base = beginCompiled(patterns, spend);
  const tags = new PatternSet(patterns);
  return { ...base, bytes: base.bytes + tags.bytes, tags };
}

/** To compile a character costs about as much as so many operations. */
const operationsPerCharacter = 10;

function beginCompiled(patterns: readonly string[], spend: SpendWork): Compiled {
  const characters = patterns.reduce((sum, { length }) => sum + length, 0);
  const excessive = isExcessive(patterns);
  if (excessive) spend(characters * operationsPerCharacter);
  return {
    bytes: maxVerdictCharacters + characters + patterns.length * 64,
    isExcessive: excessive,
    verdicts: new LRUCache<string, boolean>({
      maxSize: maxVerdictCharacters,
      sizeCalculation: (_verdict, question) => question.length + 1,
    }),
  };
}

function verdict({ verdicts }: Compiled, question: string, judge: () => boolean): boolean {
  const known = verdicts.get(question);
  if (known !== undefined) return known;
  const judged = judge();
  verdicts.set(question, judged);
  return judged;
}

/** The `namespace/name` of a ServiceAccount, as patterns have it; the user itself where it is none. */
function accountOf(user: string): string {
  const [, namespace, name] = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(user) ?? [];
  return namespace === undefined ? user : `${namespace}/${name}`;
}

function matchesRule(
  rules: readonly AccessRule[],
  compiled: CompiledRules,
  { action, repository, user: account }: AccessRequest,
): boolean {
  const { repositories, rulesOfRepositories, accounts, rulesOfAccounts, rulesForAll } = compiled;
  const theirs = new Set(accounts.matching(account).map((pattern) => rulesOfAccounts[pattern]));
  if (theirs.size === 0) return false;
  const there =
    repository === ""
      ? rulesForAll
      : repositories.matching(repository).map((pattern) => rulesOfRepositories[pattern]);
  return there.some((index) => {
    const rule = index === undefined ? undefined : rules[index];
    return rule !== undefined && theirs.has(index) && allowsAction(rule.verbs, action);
  });
}

const allowsAction = (verbs: readonly Action[], action: Action): boolean =>
  verbs.includes(action) || (action === "pull" && verbs.includes("push"));
