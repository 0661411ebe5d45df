import { expect } from "chai";
import fc from "fast-check";
import { describeProblems, show } from "../../src/connector/problem.ts";

describe("show(): what a person is shown of a foreign value", () => {
  const unprintable = "something that can't be shown";
  const circular: unknown[] = [];
  circular.push(circular);
  const deep: unknown = JSON.parse("[".repeat(100_000) + "]".repeat(100_000));
  const cases: readonly [claim: string, value: unknown, shown: string][] = [
    ["a text is quoted", "harbor", '"harbor"'],
    ["a value is shown as JSON", { a: [1, null, true] }, '{"a":[1,null,true]}'],
    ["nothing is called so", undefined, "nothing"],
    ["a newline is written as its code", "a\nb", '"a\\nb"'],
    ["a control sequence of 8-bit terminals is written as its code", "\u009b2J", '"\\u{9b}2J"'],
    ["so is DEL", "a\u007f", '"a\\u{7f}"'],
    ["so are signs that turn the direction of text", "\u202etxt", '"\\u{202e}txt"'],
    ["so is a line separator", "a\u2028b", '"a\\u{2028}b"'],
    ["letters of any language stay readable", "größe 値 🐳", '"größe 値 🐳"'],
    ["a value of 120 signs is shown whole", "x".repeat(118), `"${"x".repeat(118)}"`],
    ["a long value is cut", "x".repeat(500), `"${"x".repeat(119)}…`],
    ["a list that contains itself can't be shown", circular, unprintable],
    ["nor can one that is too deep for JSON", deep, unprintable],
    ["nor can a big integer", 1n, unprintable],
    ["nor can a function", () => 1, unprintable],
  ];
  for (const [claim, value, shown] of cases) {
    it(claim, () => {
      expect(show(value)).to.equal(shown);
    });
  }

  it("is one short line without control characters, whatever the value", () => {
    const codePoint = fc.nat(0x10ffff).map((code) => String.fromCodePoint(code));
    const anyText = fc.string({ unit: codePoint, maxLength: 300 });
    fc.assert(
      fc.property(fc.oneof(fc.anything(), anyText), (value) => {
        expect(show(value)).to.match(/^[^\p{C}\u2028\u2029]{1,1300}$/u);
      }),
    );
  }).timeout(20_000);
});

describe("describeProblems(): the sentence about all problems", () => {
  it("names for each where it is, what was found and what is wanted", () => {
    const problems = [
      { path: "kind", found: '"Pod"', wanted: "Connector" },
      { path: "spec.address", found: "nothing", wanted: "a URL" },
    ];
    expect(describeProblems(problems)).to.equal(
      'kind: found "Pod", wanted Connector; spec.address: found nothing, wanted a URL',
    );
  });

  it("stays short where there are very many", () => {
    const problem = { path: "a", found: "b", wanted: "c" };
    const sentence = describeProblems(Array.from({ length: 100_000 }, () => problem));
    expect(sentence.match(/a: found b, wanted c; /g)).to.have.length(20);
    expect(sentence).to.match(/; and 99980 more problems$/);
  });
});
