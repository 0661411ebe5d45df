import { expect } from "chai";
import { Unavailable } from "../../src/connector/platform.ts";
import { type Asker, createFairQueue, type FairQueueOptions } from "../../src/kube/fair-queue.ts";

describe("createFairQueue()", () => {
  let order: string[];
  let gates: (() => void)[];

  beforeEach(() => {
    order = [];
    gates = [];
  });

  const createQueue = (options: Partial<FairQueueOptions> = {}) => {
    const queue = createFairQueue({ what: "questions", concurrency: 1, ...options });
    return (group: string, member: string): Promise<string> => {
      const asker: Asker = { group, member };
      const name = `${group}${member}`;
      const task = async (): Promise<string> => {
        order.push(name);
        await new Promise<void>((resolve) => gates.push(resolve));
        return name;
      };
      return queue.run(asker, task).catch((error: unknown) => {
        expect(error).to.be.instanceOf(Unavailable);
        return `no: ${(error as Error).message}`;
      });
    };
  };
  const finish = async (): Promise<void> => {
    for (let gate = gates.shift(); gate !== undefined; gate = gates.shift()) {
      gate();
      await new Promise(setImmediate);
    }
  };

  it("lets groups take turns, and their members in them", async () => {
    const ask = createQueue();
    const first = ask("a", "0");
    const rest = ["a1", "a1", "a1", "a2", "b1", "b1", "c1"].map(([group = "", member = ""]) =>
      ask(group, member),
    );
    await finish();
    await Promise.all([first, ...rest]);
    expect(order.join(" ")).to.equal("a0 a1 b1 c1 a2 b1 a1 a1");
  });

  it("rejects the newest of whoever has the most, and says why", async () => {
    let rejected = 0;
    const ask = createQueue({ maxWaiting: 4, onReject: () => (rejected += 1) });
    const answers = ["a0", "a1", "a1", "a1", "a2", "b1", "c1", "a1"].map(
      ([group = "", member = ""]) => ask(group, member),
    );
    await finish();
    const full = "no: too many questions are waiting for the API server";
    expect(await Promise.all(answers)).to.deep.equal([
      "a0",
      "a1",
      full,
      full,
      "a2",
      "b1",
      "c1",
      full,
    ]);
    expect(rejected).to.equal(3);
  });

  it("gives up what has waited too long, and goes on", async () => {
    const ask = createQueue({ maxWaitMs: 20 });
    const first = ask("a", "1");
    expect(await ask("a", "2")).to.contain("have waited too long");
    const next = ask("a", "3");
    await finish();
    expect(await Promise.all([first, next])).to.deep.equal(["a1", "a3"]);
  });

  it("goes on after a task that fails", async () => {
    const queue = createFairQueue({ what: "questions", concurrency: 1 });
    const asker = { group: "a", member: "1" };
    const failed = queue.run(asker, () => Promise.reject(new Error("broken")));
    const next = queue.run(asker, async () => "fine");
    expect(await failed.catch(String)).to.equal("Error: broken");
    expect(await next).to.equal("fine");
  });
});
