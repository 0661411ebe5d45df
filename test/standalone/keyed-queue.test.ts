import { expect } from "chai";
import { keyedQueue } from "../../src/standalone/keyed-queue.ts";

describe("a keyed queue", () => {
  it("runs tasks of one key in order, and those of another key meanwhile", async () => {
    const queue = keyedQueue();
    const gate = Promise.withResolvers<void>();
    const order: string[] = [];
    const task = (name: string, wait?: Promise<void>) => async (): Promise<string> => {
      await wait;
      order.push(name);
      return name;
    };
    const first = queue.run("a", task("a1", gate.promise));
    const second = queue.run("a", task("a2"));
    expect(await queue.run("b", task("b1"))).to.equal("b1");
    expect(order).to.deep.equal(["b1"]);
    gate.resolve();
    expect(await Promise.all([first, second])).to.deep.equal(["a1", "a2"]);
    expect(order).to.deep.equal(["b1", "a1", "a2"]);
  });

  it("goes on after a failure, and tells of it", async () => {
    const queue = keyedQueue();
    const failed = queue.run("a", () => Promise.reject(new Error("no")));
    const next = queue.run("a", async () => "yes");
    expect(await failed.catch(String)).to.equal("Error: no");
    expect(await next).to.equal("yes");
  });

  it("is idle when all its tasks have ended, also those that fail", async () => {
    const queue = keyedQueue();
    let ended = 0;
    for (const key of ["a", "a", "b"]) {
      queue
        .run(key, async () => {
          await new Promise(setImmediate);
          ended++;
          throw new Error("no");
        })
        .catch(() => {});
    }
    await queue.idle();
    expect(ended).to.equal(3);
  });
});
