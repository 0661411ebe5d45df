import { expect } from "chai";
import fc from "fast-check";
import {
  type AccessRule,
  isAllowed,
  isPattern,
  matches,
  parseAccessRules,
  parseTagPatterns,
} from "../../src/connector/access-rules.ts";

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

  it("takes no time, whatever it and the text look like", () => {
    const begin = performance.now();
    matches(`${"**/a/".repeat(50)}b`, "a/".repeat(127));
    matches(`${"*a".repeat(100)}b`, "a".repeat(255));
    expect(performance.now() - begin).to.be.below(2_000); // a search that tries all ways takes years
  });
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
