import { expect } from "chai";
import fc from "fast-check";
import { parseGoDurationSeconds } from "../../src/connector/duration.ts";

/** What Go 1.26's `time.ParseDuration` makes of each text. */
const accepted: readonly [text: string, seconds: number][] = [
  ["0", 0],
  ["0s", 0],
  ["30m", 1800],
  ["1h30m", 5400],
  ["1.5h", 5400],
  ["0.1h", 360],
  ["1.s", 1],
  [".5s", 0.5],
  ["1m0.5s", 60.5],
  ["01m", 60],
  ["600s", 600],
  ["600000ms", 600],
  ["600000000us", 600],
  ["600000000\u00b5s", 600],
  ["600000000\u03bcs", 600],
  ["600000000000ns", 600],
  ["1h1h", 7200],
  ["1s1h", 3601],
  ["100000h", 360_000_000],
];

const refused: readonly string[] = [
  "",
  "m",
  "1",
  "10",
  "00",
  "1d",
  "1M",
  "1hm",
  ".",
  ".s",
  "1..5s",
  "1.5.5s",
  "1e3s",
  "1,5h",
  "1m 1s",
  " 1m",
  "1m ",
  "1m\n",
  "0x10s",
  "\u0663m",
];

describe("a Go duration", () => {
  for (const [text, seconds] of accepted) {
    it(`${JSON.stringify(text)} is ${seconds} s`, () => {
      expect(parseGoDurationSeconds(text)).to.equal(seconds);
    });
  }

  for (const text of refused) {
    it(`${JSON.stringify(text)} is none`, () => {
      expect(parseGoDurationSeconds(text)).to.equal(undefined);
    });
  }

  it("has no sign here, though Go allows one", () => {
    expect(["-1m", "+1m"].map(parseGoDurationSeconds)).to.deep.equal([undefined, undefined]);
  });

  it("is the sum of its parts", () => {
    const units = { h: 3600, m: 60, s: 1 };
    const part = fc.tuple(fc.nat(1000), fc.constantFrom("h", "m", "s"));
    fc.assert(
      fc.property(fc.array(part, { minLength: 1, maxLength: 6 }), (parts) => {
        const text = parts.map(([count, unit]) => `${count}${unit}`).join("");
        const seconds = parts.reduce((sum, [count, unit]) => sum + count * units[unit], 0);
        expect(parseGoDurationSeconds(text)).to.equal(seconds);
      }),
    );
  }).timeout(20_000);

  it("costs linear time: 300,000 digits without a unit are refused before the time limit", () => {
    expect(parseGoDurationSeconds("1".repeat(300_000))).to.equal(undefined);
  }).timeout(20_000);
});
