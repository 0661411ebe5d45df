import { expect } from "chai";
import { isAsWanted } from "../../src/controller/ensure-object.ts";

describe("isAsWanted()", () => {
  it("passes over what is left open", () => {
    const found = { a: 1, b: { c: [{ d: 1, e: 2 }], f: "x" }, g: null };
    for (const wanted of [{}, { a: 1 }, { b: { c: [{ d: 1 }] } }, found]) {
      expect(isAsWanted(found, wanted)).to.equal(true);
    }
  });

  it("sees what is missing, different, or too much in a list", () => {
    const found = { a: 1, b: { c: [1, 2] } };
    for (const wanted of [
      { a: 2 },
      { x: 1 },
      { a: { y: 1 } },
      { b: { c: [1] } },
      { b: { c: [2, 1] } },
      { b: { c: [1, 2, 3] } },
      { b: { c: {} }, a: "1" },
    ]) {
      expect(isAsWanted(found, wanted), JSON.stringify(wanted)).to.equal(false);
    }
    expect(isAsWanted(undefined, { a: 1 })).to.equal(false);
    expect(isAsWanted({ a: {} }, { a: [] })).to.equal(false);
  });
});
