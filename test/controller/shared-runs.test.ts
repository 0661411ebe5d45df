import { setImmediate } from "node:timers/promises";
import { expect } from "chai";
import { sharedRuns } from "../../src/controller/proxy-access.ts";

describe("sharedRuns()", () => {
  it("shares a run that has not begun, and begins none while one runs", async () => {
    const begun: { readonly key: string; readonly end: (value: string | Error) => void }[] = [];
    const run = sharedRuns<string>((key) => {
      const { promise, resolve, reject } = Promise.withResolvers<string>();
      const end = (value: string | Error): void =>
        value instanceof Error ? reject(value) : resolve(value);
      begun.push({ key, end });
      return promise;
    });
    const first = [run("a"), run("a")];
    const other = run("b");
    await setImmediate();
    expect(begun.map(({ key }) => key)).to.deep.equal(["a", "b"]);
    const second = [run("a"), run("a")];
    await setImmediate();
    expect(begun).to.have.length(2);
    begun[0]?.end(new Error("no"));
    for (const one of first) expect(await one.catch(String)).to.equal("Error: no");
    begun[1]?.end("b");
    expect(await other).to.equal("b");
    expect(begun.map(({ key }) => key)).to.deep.equal(["a", "b", "a"]);
    begun[2]?.end("yes");
    expect(await Promise.all(second)).to.deep.equal(["yes", "yes"]);
    void run("a");
    await setImmediate();
    expect(begun).to.have.length(4);
  });
});
