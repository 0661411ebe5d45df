import { expect } from "chai";
import fc from "fast-check";
import { parseAccessRules, parseTagPatterns } from "../../src/connector/access-rules.ts";

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
