import { expect } from "chai";
import fc from "fast-check";
import {
  isConnectorName,
  isNamespace,
  parseConnectorRef,
  showRef,
} from "../../src/connector/connector-ref.ts";
import { describeProblems } from "../../src/connector/problem.ts";

describe("the name of a connector", () => {
  const cases: readonly [claim: string, name: string, right: boolean][] = [
    ["may have letters, digits and dashes", "harbor-2", true],
    ["may be one letter", "a", true],
    ["may begin with a digit, since its Service begins with c-", "2nd", true],
    ["may have 61 characters, which makes 63 with c-", "a".repeat(61), true],
    ["may not have 62 characters", "a".repeat(62), false],
    ["may not be empty", "", false],
    ["may not begin with a dash", "-a", false],
    ["may not end with a dash", "a-", false],
    ["may not have capitals", "Harbor", false],
    ["may not have a dot", "a.b", false],
    ["may not have a slash", "a/b", false],
    ["may not have an underscore", "a_b", false],
    ["may not have a percent sign", "a%2fb", false],
    ["may not end in a newline", "a\n", false],
    ["may not have letters beyond ASCII", "größe", false],
  ];
  for (const [claim, name, right] of cases) {
    it(claim, () => {
      expect(isConnectorName(name)).to.equal(right);
    });
  }

  it("is shorter than a namespace may be", () => {
    expect([61, 62, 63, 64].map((length) => isNamespace("a".repeat(length)))).to.deep.equal([
      true,
      true,
      true,
      false,
    ]);
  });
});

describe("a reference to a connector", () => {
  const read = (text: string, home = "team-a") => {
    const ref = parseConnectorRef(text, home, "connectors");
    return ref.ok ? showRef(ref.value) : describeProblems(ref.problems);
  };

  it("without a namespace means the one given", () => {
    expect(read("harbor")).to.equal("team-a/harbor");
  });

  it("with a namespace means that one", () => {
    expect(read("team-b/ghcr")).to.equal("team-b/ghcr");
  });

  for (const text of [
    "",
    "/",
    "/harbor",
    "team-b/",
    "a/b/c",
    "a//b",
    "../b",
    "a b",
    "A/b",
    "a/B",
  ]) {
    it(`can't be ${JSON.stringify(text)}`, () => {
      expect(read(text)).to.equal(
        `connectors: found ${JSON.stringify(text)}, wanted <name> or <namespace>/<name>: ` +
          'the name a DNS label of at most 61 characters (a-z, 0-9, "-"), ' +
          'the namespace a DNS label of at most 63 characters (a-z, 0-9, "-")',
      );
    });
  }

  it("comes back from how it is shown, and holds nothing but labels, whatever the text", () => {
    const label = fc.stringMatching(/^[a-z0-9-]{1,64}$/);
    const text = fc.oneof(
      fc.string(),
      label,
      fc.tuple(label, label).map(([a, b]) => `${a}/${b}`),
    );
    fc.assert(
      fc.property(text, (written) => {
        const ref = parseConnectorRef(written, "team-a", "connectors");
        if (!ref.ok) return;
        expect(showRef(ref.value)).to.match(/^[a-z0-9][a-z0-9-]*\/[a-z0-9][a-z0-9-]*$/);
        expect(parseConnectorRef(showRef(ref.value), "other", "connectors")).to.deep.equal(ref);
      }),
    );
  }).timeout(20_000);
});
