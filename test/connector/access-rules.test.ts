import { expect } from "chai";
import fc from "fast-check";
import {
  type AccessRule,
  parseAccessRules,
  parseTagPatterns,
  patternExcess,
} from "../../src/connector/access-rules.ts";
import { isAllowed } from "../../src/connector/access-verdict.ts";
import {
  isPattern,
  matches,
  matchesEverything,
  PatternSet,
} from "../../src/connector/pattern-set.ts";
import { growthOf } from "../support/growth.ts";

describe("a pattern of an access rule", () => {
  const cases: readonly (readonly [string, readonly string[], readonly string[]])[] = [
    ["app", ["app"], ["apps", "app/web", "team/app"]],
    ["team-a/*", ["team-a/app", "team-a/x"], ["team-a", "team-a/app/web", "team-b/app"]],
    ["team-a/**", ["team-a", "team-a/app", "team-a/app/web"], ["team-b", "team-ab/app"]],
    ["**", ["a", "a/b/c"], []],
    ["**/web", ["web", "a/web", "a/b/web"], ["a/web/b", "aweb"]],
    ["a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a/b", "z", "a/bz"]],
    ["app-*-v1.*", ["app-x-v1.2", "app--v1."], ["app-x-v1x2", "app-x/y-v1.2"]],
    ["v*", ["v", "v1.2.3"], ["1v", "latest"]],
    ["*", ["a"], ["a/b"]],
  ];
  for (const [pattern, fitting, others] of cases) {
    it(`${pattern} fits ${fitting.join(", ")}`, () => {
      expect(isPattern(pattern)).to.equal(true);
      for (const text of fitting) expect(matches(pattern, text), text).to.equal(true);
      for (const text of others) expect(matches(pattern, text), text).to.equal(false);
    });
  }

  for (const pattern of ["", "/a", "a/", "a//b", "a b", "a(", "ü", "a".repeat(256)]) {
    it(`${JSON.stringify(pattern.slice(0, 20))} is none`, () => {
      expect(isPattern(pattern)).to.equal(false);
    });
  }

  it("without stars fits itself alone", () => {
    const text = fc.stringMatching(/^[a-z.]{1,6}(\/[a-z.]{1,6}){0,3}$/);
    fc.assert(
      fc.property(text, text, (one, other) => {
        expect(matches(one, one)).to.equal(true);
        expect(matches(one, other)).to.equal(one === other);
      }),
    );
  });

  it("fits what it fits with its stars filled in", () => {
    const filling = fc.array(fc.stringMatching(/^[a-z]{1,4}$/), { maxLength: 4 });
    fc.assert(
      fc.property(filling, fc.stringMatching(/^[a-z]{0,5}$/), (components, part) => {
        const text = ["team", ...components, `x${part}y`].join("/");
        expect(matches("team/**/x*y", text)).to.equal(true);
      }),
    );
  });
});

/** What a pattern means, tried in all ways. */
function fitsByTrying(pattern: readonly string[], text: readonly string[]): boolean {
  const [part, ...parts] = pattern;
  const [component, ...components] = text;
  if (part === undefined) return component === undefined;
  if (part === "**") {
    return (
      fitsByTrying(parts, text) || (component !== undefined && fitsByTrying(pattern, components))
    );
  }
  if (component === undefined) return false;
  const expression = new RegExp(`^${part.replaceAll(".", "\\.").replace(/\*+/g, ".*")}$`);
  return expression.test(component) && fitsByTrying(parts, components);
}

describe("a set of patterns", function () {
  this.timeout(30_000);
  const component = fc.oneof(
    fc.constantFrom("**", "*", "***"),
    fc.stringMatching(/^[ab*]{1,4}$/),
    fc.stringMatching(/^[ab.]{1,3}$/),
  );
  const pattern = fc.array(component, { minLength: 1, maxLength: 6 });
  const text = fc.array(fc.stringMatching(/^[ab.]{1,4}$/), { minLength: 1, maxLength: 6 });

  it("fits what each of them fits, and nothing else", () => {
    const patterns = fc.array(pattern, { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(patterns, text, (some, components) => {
        const set = new PatternSet(some.map((parts) => parts.join("/")));
        const expected = some.flatMap((parts, index) =>
          fitsByTrying(parts, components) ? index : [],
        );
        expect(set.matching(components.join("/"))).to.deep.equal(expected);
      }),
      { numRuns: 2_000 },
    );
  });

  it("knows those that fit everything", () => {
    for (const all of ["**", "**/**", "**/*", "*/**", "**/***/**"]) {
      expect(matchesEverything(all), all).to.equal(true);
      expect(matches(all, "a") && matches(all, "a/b/c"), all).to.equal(true);
    }
    for (const some of ["*", "***", "*/*", "**/*/*", "**/a*", "a/**", "*/*/**"]) {
      expect(matchesEverything(some), some).to.equal(false);
    }
  });

  it("of no patterns fits nothing", () => {
    expect(new PatternSet([]).matching("a")).to.deep.equal([]);
  });

  const many = (size: number, one: (index: number) => string): PatternSet =>
    new PatternSet(Array.from({ length: size }, (_, index) => one(index)));
  const shapes: readonly (readonly [string, (index: number) => string, string])[] = [
    ["** between many components", () => `${"**/a/".repeat(40)}b`, `${"a/".repeat(120)}a`],
    ["* between many characters", () => `${"*a".repeat(120)}b`, "a".repeat(240)],
    ["names alone", (index) => `team-${index}/app`, "team-1/app"],
    ["stars alone", () => `${"*/".repeat(100)}*`, `${"a/".repeat(100)}a`],
  ];
  for (const [name, one, longText] of shapes) {
    it(`takes time in proportion to their number, and to the text: ${name}`, () => {
      const byNumber = (size: number) => {
        const set = many(size, one);
        return () => set.matching(longText);
      };
      expect(growthOf(byNumber, 400, 2.5)).to.be.at.most(2.5);
      expect(growthOf((size) => () => many(size, one), 400, 2.5)).to.be.at.most(2.5);
      const set = many(100, one);
      const unit = `${longText}/`;
      const byText = (size: number) => {
        const long = unit.repeat(size);
        return () => set.matching(long);
      };
      expect(growthOf(byText, 20, 2.5)).to.be.at.most(2.5);
    });
  }
});

describe("access rules", () => {
  const builder = "system:serviceaccount:team-a:builder";
  const rule = (changes: Partial<AccessRule>): AccessRule => ({
    verbs: ["pull"],
    repositories: ["**"],
    serviceAccounts: ["**"],
    ...changes,
  });
  const may = (rules: readonly AccessRule[] | undefined, action: "pull" | "push" | "delete") =>
    isAllowed(rules, { action, repository: "team-a/app", user: builder });

  it("that are not there allow everything", () => {
    expect(may(undefined, "delete")).to.equal(true);
  });

  it("that are none allow nothing", () => {
    expect(may([], "pull")).to.equal(false);
  });

  it("allow what one of them names", () => {
    const rules = [rule({ verbs: ["pull"] }), rule({ verbs: ["delete"], repositories: ["other"] })];
    expect(may(rules, "pull")).to.equal(true);
    expect(may(rules, "push")).to.equal(false);
    expect(may(rules, "delete")).to.equal(false);
  });

  it("let a push look at what is there", () => {
    expect(may([rule({ verbs: ["push"] })], "pull")).to.equal(true);
    expect(may([rule({ verbs: ["delete"] })], "pull")).to.equal(false);
  });

  it("know ServiceAccounts by namespace and name", () => {
    for (const [pattern, allowed] of [
      ["team-a/builder", true],
      ["team-a/*", true],
      ["*/builder", true],
      ["team-b/*", false],
      ["builder", false],
    ] as const) {
      expect(may([rule({ serviceAccounts: [pattern] })], "pull"), pattern).to.equal(allowed);
    }
  });

  it("fit no ServiceAccount's pattern to a user that is none", () => {
    const request = { action: "pull", repository: "app", user: "volume:team-a" } as const;
    expect(isAllowed([rule({ serviceAccounts: ["team-a/*", "*/*"] })], request)).to.equal(false);
    expect(isAllowed([rule({})], request)).to.equal(true);
  });

  it("open the list of all repositories where one of them is for all, and nowhere else", () => {
    const list = { action: "pull", repository: "", user: builder } as const;
    for (const [repositories, allowed] of [
      [["*"], false],
      [["*/*", "team-a/**", "***"], false],
      [["**"], true],
      [["a", "**/*"], true],
    ] as const) {
      expect(isAllowed([rule({ repositories })], list), repositories.join()).to.equal(allowed);
    }
    expect(isAllowed([rule({ serviceAccounts: ["team-b/*"] })], list)).to.equal(false);
    expect(isAllowed([rule({ verbs: ["delete"] })], list)).to.equal(false);
  });

  it("spend work where they are more than a connector may have, and once for each question", () => {
    const spent: number[] = [];
    const ask = (rules: readonly AccessRule[], repository: string) =>
      isAllowed(rules, { action: "pull", repository, user: builder }, (count) => spent.push(count));
    const usual = [
      rule({ repositories: Array.from({ length: 1_000 }, (_, index) => `a${index}`) }),
    ];
    expect(ask(usual, "a1")).to.equal(true);
    expect(spent).to.deep.equal([]);
    const excessive = [...usual, rule({ repositories: ["b"] })];
    expect(ask(excessive, "b")).to.equal(true);
    expect(spent, "compiled, and asked").to.have.length(2);
    expect(ask(excessive, "b")).to.equal(true);
    expect(spent).to.have.length(2);
    expect(ask(excessive, "c")).to.equal(false);
    expect(spent).to.have.length(3);
  });

  it("refuse what can't be paid for, and remember nothing of it", () => {
    const rules = [
      rule({ repositories: Array.from({ length: 1_001 }, (_, index) => `a${index}`) }),
    ];
    const ask = (spend: () => void) =>
      isAllowed(rules, { action: "pull", repository: "a1000", user: builder }, spend);
    const refuse = () => {
      throw new Error("too much");
    };
    expect(() => ask(refuse)).to.throw("too much");
    expect(ask(() => undefined)).to.equal(true);
    expect(ask(refuse), "remembered").to.equal(true);
  });
});

const path = "spec.params.0.value";

describe("a Connector's parameter rules", () => {
  const written = [
    { verbs: ["pull"], repositories: ["library/**"] },
    { verbs: ["pull", "push"], repositories: ["team-a/*"], serviceAccounts: ["team-a/builder"] },
  ];
  const read = [
    { verbs: ["pull"], repositories: ["library/**"], serviceAccounts: ["**"] },
    { verbs: ["pull", "push"], repositories: ["team-a/*"], serviceAccounts: ["team-a/builder"] },
  ];

  it("may be a list, or its JSON text", () => {
    for (const value of [written, JSON.stringify(written)]) {
      expect(parseAccessRules(value, path)).to.deep.equal({ ok: true, value: read });
    }
  });

  it("names everything that is wrong with it", () => {
    const checked = parseAccessRules(
      [
        { verbs: ["read"], repositories: ["a b"], serviceAccount: ["x"] },
        { verbs: [], repositories: "team-a/*", serviceAccounts: [1] },
        "pull",
      ],
      path,
    );
    expect(checked.ok ? [] : checked.problems.map((problem) => problem.path)).to.deep.equal([
      `${path}.0`,
      `${path}.0.verbs`,
      `${path}.0.repositories`,
      `${path}.1.verbs`,
      `${path}.1.repositories`,
      `${path}.1.serviceAccounts`,
      `${path}.2`,
      `${path}.2.verbs`,
      `${path}.2.repositories`,
    ]);
  });

  for (const value of ["pull", "{}", {}, 1, null]) {
    it(`can't be ${JSON.stringify(value)}`, () => {
      const checked = parseAccessRules(value, path);
      expect(checked.ok ? [] : checked.problems.map((problem) => problem.path)).to.deep.equal([
        path,
      ]);
    });
  }

  it("never throws", () => {
    fc.assert(
      fc.property(fc.anything(), (value) => {
        const checked = parseAccessRules(value, path);
        if (!checked.ok) expect(checked.problems).to.not.deep.equal([]);
      }),
    );
  });
});

describe("a Connector's parameter immutableTags", () => {
  for (const value of [["v*", "release-*"], '["v*", "release-*"]', "v*, release-*"]) {
    it(`may be ${JSON.stringify(value)}`, () => {
      expect(parseTagPatterns(value, path)).to.deep.equal({
        ok: true,
        value: ["v*", "release-*"],
      });
    });
  }

  for (const value of ["", "a b", [], [1], {}]) {
    it(`can't be ${JSON.stringify(value)}`, () => {
      expect(parseTagPatterns(value, path).ok).to.equal(false);
    });
  }
});

describe("the number of patterns that a connector may have", () => {
  const patterns = (count: number, length: number) => Array<string>(count).fill("a".repeat(length));

  it("is 1,000, of 64 KiB together", () => {
    expect(patternExcess(patterns(1_000, 65), path)).to.equal(undefined);
    expect(patternExcess(patterns(1_001, 1), path)).to.include({ path });
    expect(patternExcess(patterns(257, 255), path)).to.equal(undefined);
    expect(patternExcess(patterns(258, 255), path)?.found).to.equal("258 patterns of 65790 bytes");
  });
});
