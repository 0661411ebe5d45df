import { expect } from "chai";
import fc from "fast-check";
import { distance } from "../../src/connector/nearest.ts";

describe("the distance of two words", () => {
  for (const [from, to, expected] of [
    ["", "", 0],
    ["", "abc", 3],
    ["mount", "mount", 0],
    ["mout", "mount", 1],
    ["muont", "mount", 1],
    ["mounts", "mount", 1],
    ["moant", "mount", 1],
    ["kitten", "sitting", 3],
    ["ca", "abc", 3],
  ] as const) {
    it(`is ${expected} from "${from}" to "${to}"`, () => {
      expect(distance(from, to)).to.equal(expected);
    });
  }

  it("is the same both ways, and never more than the letters of the longer word", () => {
    const word = fc.stringMatching(/^[abc]{0,8}$/);
    fc.assert(
      fc.property(word, word, (from, to) => {
        const found = distance(from, to);
        expect(found).to.equal(distance(to, from));
        expect(found).to.be.within(
          from === to ? 0 : Math.max(1, Math.abs(from.length - to.length)),
          Math.max(from.length, to.length),
        );
      }),
    );
  });
});
