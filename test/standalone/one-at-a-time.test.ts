import { expect } from "chai";
import { oneAtATime } from "../../src/standalone/one-at-a-time.ts";

describe("a task that runs one at a time", () => {
  it("runs once more for all who ask while it runs, and no two runs overlap", async () => {
    const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let begun = 0;
    let ended = 0;
    const run = oneAtATime(async () => {
      expect(begun).to.equal(ended);
      await gates[begun++]?.promise;
      ended++;
    });
    const first = run();
    await new Promise(setImmediate);
    const others = [run(), run(), run()];
    expect(begun).to.equal(1);
    gates[0]?.resolve();
    await first;
    expect(ended).to.equal(1);
    gates[1]?.resolve();
    await Promise.all(others);
    expect([begun, ended]).to.deep.equal([2, 2]);
  });

  it("tells of a failure those who asked for that run, and goes on", async () => {
    const outcomes = [Promise.reject(new Error("first")), Promise.resolve()];
    for (const outcome of outcomes) outcome.catch(() => {});
    const run = oneAtATime(async () => await outcomes.shift());
    expect(await run().catch(String)).to.equal("Error: first");
    expect(await run()).to.equal(undefined);
  });
});
