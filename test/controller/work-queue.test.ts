import { setImmediate } from "node:timers/promises";
import { expect } from "chai";
import {
  createWorkQueue,
  type WorkQueue,
  type WorkQueueOptions,
} from "../../src/controller/work-queue.ts";
import { fakeClock } from "./fake-clock.ts";

describe("createWorkQueue()", () => {
  /** A queue whose runs a test ends, and what it has run so far. */
  const queueOf = (
    options: Pick<WorkQueueOptions, "groupOf" | "groupConcurrency" | "isUrgent"> & {
      readonly concurrency?: number;
    } = {},
  ) => {
    const clock = fakeClock();
    const runs: string[] = [];
    const failures: string[] = [];
    const ends: ((delay?: number | Error) => void)[] = [];
    const queue = createWorkQueue({
      ...options,
      run(key) {
        runs.push(key);
        return new Promise((resolve, reject) => {
          ends.push((delay) => (delay instanceof Error ? reject(delay) : resolve(delay)));
        });
      },
      onError: (key, error) => failures.push(`${key}: ${String(error)}`),
      concurrency: options.concurrency ?? 10,
      retry: { initialMs: 100, maxMs: 1000 },
      clock,
      random: () => 1 - Number.EPSILON,
    });
    const end = async (index: number, delay?: number | Error): Promise<void> => {
      ends[index]?.(delay);
      await setImmediate();
    };
    return { clock, runs, failures, end, queue };
  };

  it("runs what is added once, however often that is, and again what is added meanwhile", async () => {
    const { queue, runs, end } = queueOf();
    queue.add("a");
    queue.add("a");
    expect(runs).to.deep.equal(["a"]);
    queue.add("a");
    queue.add("a");
    expect(runs).to.deep.equal(["a"]);
    await end(0);
    expect(runs).to.deep.equal(["a", "a"]);
    await end(1);
    expect(runs).to.have.length(2);
  });

  it("runs a key when it is first due, and not a second time", () => {
    const { queue, runs, clock } = queueOf();
    queue.add("a", 1000);
    queue.add("a", 500);
    queue.add("a", 2000);
    clock.advance(499);
    expect(runs).to.deep.equal([]);
    clock.advance(1);
    expect(runs).to.deep.equal(["a"]);
    expect(clock.waiting).to.equal(0);
  });

  it("runs a key again when it has asked for that, or sooner", async () => {
    const { queue, runs, clock, end } = queueOf();
    queue.add("a");
    await end(0, 300);
    clock.advance(299);
    expect(runs).to.have.length(1);
    clock.advance(1);
    expect(runs).to.have.length(2);
    queue.add("a", 100);
    await end(1, 300);
    clock.advance(100);
    expect(runs).to.have.length(3);
    expect(clock.waiting).to.equal(0);
  });

  it("tries again what has failed, ever more rarely, until it works", async () => {
    const { queue, runs, failures, clock, end } = queueOf();
    queue.add("a");
    for (const [index, delay] of [100, 200, 400, 800, 1000, 1000].entries()) {
      await end(index, new Error(`number ${index}`));
      clock.advance(delay - 1);
      expect(runs).to.have.length(index + 1);
      clock.advance(1);
      expect(runs).to.have.length(index + 2);
    }
    expect(failures[5]).to.equal("a: Error: number 5");
    await end(6, 0);
    await end(7, new Error("again"));
    clock.advance(100);
    expect(runs).to.have.length(9);
  });

  it("runs so many at once, in the order in which they came", async () => {
    const { queue, runs, end } = queueOf({ concurrency: 2 });
    for (const key of ["a", "b", "c", "d"]) queue.add(key);
    expect(runs).to.deep.equal(["a", "b"]);
    await end(1);
    expect(runs).to.deep.equal(["a", "b", "c"]);
    await end(0, new Error("a"));
    expect(runs).to.deep.equal(["a", "b", "c", "d"]);
  });

  const groupOf = (key: string): string => key.slice(0, 1);

  it("runs so many of a group at once, and lets others pass it", async () => {
    const { queue, runs, end } = queueOf({ concurrency: 3, groupOf, groupConcurrency: 2 });
    for (const key of ["a1", "a2", "a3", "b1"]) queue.add(key);
    expect(runs).to.deep.equal(["a1", "a2", "b1"]);
    queue.add("c1");
    await end(0);
    expect(runs.slice(3)).to.deep.equal(["c1"]);
    await end(1);
    expect(runs.slice(4)).to.deep.equal(["a3"]);
  });

  it("gives a free place to the group that has the fewest, and lets equal ones take turns", async () => {
    const { queue, runs, end } = queueOf({ concurrency: 1, groupOf });
    for (const key of ["a1", "a2", "a3", "b1", "b2", "c1"]) queue.add(key);
    for (let index = 0; index < 6; index += 1) await end(index);
    expect(runs).to.deep.equal(["a1", "b1", "c1", "a2", "b2", "a3"]);
  });

  it("runs what is urgent before the others of its group", async () => {
    const isUrgent = (key: string): boolean => key.endsWith("!");
    const { queue, runs, end } = queueOf({ concurrency: 1, groupOf, isUrgent });
    for (const key of ["a1", "a2", "b1", "a3!", "b2!"]) queue.add(key);
    for (let index = 0; index < 5; index += 1) await end(index);
    expect(runs).to.deep.equal(["a1", "b2!", "a3!", "b1", "a2"]);
  });

  it("waits for what is running when it is stopped, and begins nothing new", async () => {
    const { queue, runs, clock, end } = queueOf({ concurrency: 1 });
    queue.add("a");
    queue.add("b");
    queue.add("c", 10);
    const ended = isEnded(queue);
    await setImmediate();
    expect(ended.isEnded).to.equal(false);
    await end(0, 10);
    expect(ended.isEnded).to.equal(true);
    queue.add("d");
    clock.advance(1000);
    expect(runs).to.deep.equal(["a"]);
    expect(clock.waiting).to.equal(0);
  });

  const isEnded = (queue: WorkQueue): { isEnded: boolean } => {
    const state = { isEnded: false };
    void queue.stop().then(() => {
      state.isEnded = true;
    });
    return state;
  };
});
