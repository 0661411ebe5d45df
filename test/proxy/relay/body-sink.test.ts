import { expect } from "chai";
import { createHashBudget } from "../../../src/proxy/relay/body-sink.ts";

describe("the hash budget: what may be hashed", () => {
  it("is so much at once, and more as time passes, up to that", () => {
    let now = 5000;
    const budget = createHashBudget(() => now, { atOnce: 100, perSecond: 10 });
    expect([budget.take(60), budget.take(40), budget.take(1)]).to.deep.equal([true, true, false]);
    now += 1000;
    expect([budget.take(11), budget.take(10), budget.take(1)]).to.deep.equal([false, true, false]);
    now += 1_000_000;
    expect([budget.take(101), budget.take(100), budget.take(1)]).to.deep.equal([
      false,
      true,
      false,
    ]);
  });
});
