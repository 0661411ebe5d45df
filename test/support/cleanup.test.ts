import { expect } from "chai";
import { cleanup } from "./cleanup.ts";

describe("cleanup()", () => {
  it("ends everything in reverse order, also after a failure, and once", async () => {
    const resources = cleanup();
    const ended: string[] = [];
    resources.add({ stop: () => void ended.push("first") });
    resources.defer(() => Promise.reject(new Error("stuck")));
    resources.defer(async () => ended.push("last"));
    const error = await resources.stop().catch((reason: unknown) => reason);
    expect(error)
      .to.be.instanceOf(AggregateError)
      .with.deep.nested.property("errors[0].message", "stuck");
    await resources.stop();
    expect(ended).to.deep.equal(["last", "first"]);
  });
});
