import { expect } from "chai";
import fc from "fast-check";
import { createBackoff } from "../../src/kube/backoff.ts";

describe("createBackoff()", () => {
  const delays = (random: () => number): number[] => {
    const backoff = createBackoff({ initialMs: 100, maxMs: 1000, random });
    return Array.from({ length: 6 }, () => backoff.nextDelayMs());
  };

  it("doubles up to the longest", () => {
    expect(delays(() => 0)).to.deep.equal([50, 100, 200, 400, 500, 500]);
  });

  it("spreads each delay over the half before it", () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (chance) => {
        for (const [index, delay] of delays(() => chance).entries()) {
          const longest = Math.min(100 * 2 ** index, 1000);
          expect(delay).to.be.within(longest / 2, longest);
        }
      }),
    );
  });

  it("starts again after a success", () => {
    const backoff = createBackoff({ initialMs: 100, maxMs: 1000, random: () => 0 });
    backoff.nextDelayMs();
    backoff.nextDelayMs();
    backoff.reset();
    expect(backoff.nextDelayMs()).to.equal(50);
  });
});
