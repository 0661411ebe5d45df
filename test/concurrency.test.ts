import { setImmediate as nextTurn } from "node:timers/promises";
import { expect } from "chai";
import { createKeyedQueue, SharedCall, shareRuns } from "../src/concurrency.ts";

/** A task that ends when it is told to. */
function controlled(name: string, events: string[]) {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const task = (): Promise<string> => {
    events.push(`${name} begins`);
    return promise.finally(() => events.push(`${name} ends`));
  };
  return { task, finish: () => resolve(name), fail: () => reject(new Error(name)) };
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("createKeyedQueue()", () => {
  it("runs tasks of one key one after the other, in their order", async () => {
    const events: string[] = [];
    const queue = createKeyedQueue();
    const tasks = ["a", "b", "c"].map((name) => controlled(name, events));
    const results = Promise.all(tasks.map(({ task }) => queue.run("key", task)));
    for (const { finish } of tasks.toReversed()) finish();
    expect(await results).to.deep.equal(["a", "b", "c"]);
    expect(events).to.deep.equal(
      ["a", "b", "c"].flatMap((name) => [`${name} begins`, `${name} ends`]),
    );
  });

  it("runs tasks of different keys side by side", async () => {
    const events: string[] = [];
    const queue = createKeyedQueue();
    const [a, b] = [controlled("a", events), controlled("b", events)];
    const results = [queue.run("1", a.task), queue.run("2", b.task)];
    b.finish();
    expect(await results[1]).to.equal("b");
    a.finish();
    expect(await results[0]).to.equal("a");
  });

  it("goes on after a task that fails", async () => {
    const queue = createKeyedQueue();
    const failing = queue
      .run("key", async () => {
        throw new Error("no");
      })
      .catch((error: Error) => error.message);
    expect(await queue.run("key", async () => "yes")).to.equal("yes");
    expect(await failing).to.equal("no");
  });

  it("lets a call go that is cancelled while it waits, and keeps those behind it in their order", async () => {
    const events: string[] = [];
    const queue = createKeyedQueue();
    const [first, cancelled, last] = [
      controlled("first", events),
      controlled("cancelled", events),
      controlled("last", events),
    ];
    const abort = new AbortController();
    const running = queue.run("key", first.task);
    const waiting = queue.run("key", cancelled.task, abort.signal).catch((reason) => reason);
    const behind = queue.run("key", last.task);
    abort.abort("given up");
    expect(await waiting).to.equal("given up");
    await settled();
    expect(events).to.deep.equal(["first begins"]);
    first.finish();
    last.finish();
    expect([await running, await behind]).to.deep.equal(["first", "last"]);
    expect(events).to.deep.equal(["first begins", "first ends", "last begins", "last ends"]);
  });

  it("waits for a call that is cancelled while it runs", async () => {
    const events: string[] = [];
    const queue = createKeyedQueue();
    const abort = new AbortController();
    const running = controlled("running", events);
    const result = queue.run("key", running.task, abort.signal);
    await settled();
    abort.abort("given up");
    const next = queue.run("key", async () => events.push("next"));
    await settled();
    expect(events).to.deep.equal(["running begins"]);
    running.finish();
    expect(await result).to.equal("running");
    await next;
  });

  it("does not begin what was cancelled before it came", async () => {
    const queue = createKeyedQueue();
    const result = queue.run("key", async () => "ran", AbortSignal.abort("too late"));
    expect(await result.catch((reason) => reason)).to.equal("too late");
  });

  it("is idle when all its tasks have ended, also those that fail", async () => {
    const queue = createKeyedQueue();
    const events: string[] = [];
    const [a, b] = [controlled("a", events), controlled("b", events)];
    const results = [queue.run("1", a.task), queue.run("2", b.task).catch(String)];
    const idle = queue.idle().then(() => events.push("idle"));
    a.finish();
    await results[0];
    b.fail();
    await idle;
    expect(await results[1]).to.equal("Error: b");
    expect(events.at(-1)).to.equal("idle");
  });
});

describe("shareRuns", () => {
  it("shares a run that has not begun, and begins none while one runs", async () => {
    const begun: { readonly key: string; readonly end: (value: string | Error) => void }[] = [];
    const run = shareRuns<string>((key) => {
      const { promise, resolve, reject } = Promise.withResolvers<string>();
      const end = (value: string | Error): void =>
        value instanceof Error ? reject(value) : resolve(value);
      begun.push({ key, end });
      return promise;
    });
    const first = [run("a"), run("a")];
    const other = run("b");
    await nextTurn();
    expect(begun.map(({ key }) => key)).to.deep.equal(["a", "b"]);
    const second = [run("a"), run("a")];
    await nextTurn();
    expect(begun).to.have.length(2);
    begun[0]?.end(new Error("no"));
    for (const one of first) expect(await one.catch(String)).to.equal("Error: no");
    begun[1]?.end("b");
    expect(await other).to.equal("b");
    expect(begun.map(({ key }) => key)).to.deep.equal(["a", "b", "a"]);
    begun[2]?.end("yes");
    expect(await Promise.all(second)).to.deep.equal(["yes", "yes"]);
    void run("a");
    await nextTurn();
    expect(begun).to.have.length(4);
  });

  it("runs once more for all who ask while it runs, and no two runs overlap", async () => {
    const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let begun = 0;
    let ended = 0;
    const run = shareRuns(async () => {
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
    const run = shareRuns(async () => await outcomes.shift());
    expect(await run().catch(String)).to.equal("Error: first");
    expect(await run()).to.equal(undefined);
  });
});

describe("SharedCall", () => {
  /** A call that ends when it is told to, or when nobody waits for it. */
  function start() {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const call = new SharedCall((signal) => {
      signal.addEventListener("abort", () => reject(new Error("aborted")));
      return promise;
    });
    return { call, finish: () => resolve("done"), fail: () => reject(new Error("failed")) };
  }

  it("has one outcome for all who wait", async () => {
    for (const [end, expected] of [
      ["finish", "done"],
      ["fail", "Error: failed"],
    ] as const) {
      const started = start();
      const waiting = [1, 2, 3].map(() => started.call.wait().catch(String));
      started[end]();
      expect(await Promise.all(waiting)).to.deep.equal([expected, expected, expected]);
      expect(started.call.isAbandoned).to.equal(false);
    }
  });

  it("goes on while anybody waits, and ends when the last one goes", async () => {
    const { call } = start();
    const [first, second] = [new AbortController(), new AbortController()];
    const outcomes = [first, second].map(({ signal }) => call.wait(signal).catch(String));
    first.abort(new Error("the first went"));
    expect(await outcomes[0]).to.equal("Error: the first went");
    expect(call.isAbandoned).to.equal(false);
    second.abort(new Error("the second went"));
    expect(await outcomes[1]).to.equal("Error: the second went");
    expect(call.isAbandoned).to.equal(true);
    expect(await call.outcome.catch(String)).to.equal("Error: aborted");
  });

  it("has its outcome for whoever is left, and does not end once it has one", async () => {
    const { call, finish } = start();
    const gone = new AbortController();
    const first = call.wait(gone.signal).catch(String);
    const second = call.wait();
    gone.abort(new Error("went"));
    await first;
    finish();
    expect(await second).to.equal("done");
    expect(await call.wait()).to.equal("done");
    expect(call.isAbandoned).to.equal(false);
  });

  it("does not wait for somebody who had gone before", async () => {
    const { call } = start();
    const signal = AbortSignal.abort(new Error("went before"));
    expect(await call.wait(signal).catch(String)).to.equal("Error: went before");
    expect(call.isAbandoned).to.equal(true);
  });
});
