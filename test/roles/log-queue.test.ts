import { expect } from "chai";
import type { LineIdentity, LineOrigin } from "../../src/log.ts";
import { createLogQueue, type Gap, type LogQueue, logBounds } from "../../src/roles/log-queue.ts";

/** A queue with a clock that the test moves, and its gaps as short lines. */
function queueWithClock(): { readonly queue: LogQueue; pass(ms: number): void } {
  let nowMs = 0;
  const describeGap = ({ source, identity, reason, count, durationMs }: Gap): string =>
    `gap of ${identity?.subject ?? source}: ${count} by ${reason} in ${durationMs}\n`;
  return {
    queue: createLogQueue({ monotonicMs: () => nowMs, describeGap }),
    pass(ms) {
      nowMs += ms;
    },
  };
}
const everything = (queue: LogQueue): readonly string[] => {
  const lines: string[] = [];
  for (;;) {
    const text = queue.take(4_096);
    if (text === "") return lines;
    lines.push(...text.trimEnd().split("\n"));
  }
};
const podOf = (namespace: string, name: string): LineIdentity => ({
  subject: `system:serviceaccount:${namespace}:default/${name}`,
  user: `system:serviceaccount:${namespace}:default`,
  pod: { namespace, name },
});
/** A line of about a KiB. */
const long = (name: string): string => `${name} ${"x".repeat(1_000)}\n`;
const droppedBy = (queue: LogQueue, source: string, reason: string): number =>
  queue.droppedLines().find((counted) => counted.source === source && counted.reason === reason)
    ?.count ?? Number.NaN;

describe("the queue of the log", () => {
  const a = podOf("team-a", "build-1");
  const b = podOf("team-b", "build-1");

  it("gives whole lines in their order, as many as fit", () => {
    const { queue } = queueWithClock();
    const origins = [undefined, "stranger", a, b, undefined] as const;
    for (const [index, origin] of origins.entries()) queue.add(`line ${index}\n`, origin);
    expect(queue.take(20)).to.equal("line 0\nline 1\n");
    expect(queue.take(1)).to.equal("line 2\n"); // one at least
    expect(queue.take(4_096)).to.equal("line 3\nline 4\n");
    expect(queue.take(4_096)).to.equal("");
    expect(queue.bytes()).to.equal(0);
  });

  it("limits strangers' lines in a second, with a line for each gap where it is", () => {
    const { queue, pass } = queueWithClock();
    const { strangerBurstLines: burst, strangerLinesPerSecond: rate } = logBounds;
    for (let line = 0; line < burst + 30; line += 1) queue.add(`${line}\n`, "stranger");
    expect(droppedBy(queue, "stranger", "rate")).to.equal(30);
    expect(everything(queue)).to.have.length(burst);
    pass((1_000 * burst) / 2 / rate - 100);
    queue.add("too early\n", "stranger");
    expect(everything(queue)).to.deep.equal([]);
    pass(100);
    queue.add("next\n", "stranger");
    const gapMs = (1_000 * burst) / 2 / rate - 100;
    expect(everything(queue)).to.deep.equal([`gap of stranger: 31 by rate in ${gapMs}`, "next"]);
  });

  it("says what was left out also when no line follows", () => {
    const { queue, pass } = queueWithClock();
    for (let line = 0; line < logBounds.strangerBurstLines + 5; line += 1)
      queue.add("x\n", "stranger");
    everything(queue);
    queue.endGaps(false);
    expect(queue.hasGaps()).to.equal(true); // still too many
    pass(60_000);
    queue.endGaps(false);
    expect(everything(queue)).to.deep.equal(["gap of stranger: 5 by rate in 0"]);
    expect(queue.hasGaps()).to.equal(false);
  });

  it("keeps all lines of a subject that has as many as an honest one", () => {
    const { queue, pass } = queueWithClock();
    for (let second = 0; second < 30; second += 1) {
      for (let line = 0; line < 1_000; line += 1) queue.add("x\n", a);
      pass(1_000);
      expect(everything(queue)).to.have.length(1_000);
    }
  });

  it("limits a subject's lines in a second, and no other subject's", () => {
    const { queue } = queueWithClock();
    for (let line = 0; line < logBounds.subjectBurstLines + 7; line += 1) queue.add("a\n", a);
    queue.add("b\n", podOf("team-a", "build-2"));
    expect(droppedBy(queue, "subject", "rate")).to.equal(7);
    expect(everything(queue).at(-1)).to.equal("b");
    queue.endGaps(true);
    expect(everything(queue)).to.deep.equal([`gap of ${a.subject}: 7 by rate in 0`]);
  });

  it("says of nobody more than happened: lines and numbers add up, however they come", () => {
    const { queue, pass } = queueWithClock();
    const origins: readonly LineOrigin[] = ["stranger", a, b];
    let added = 0;
    let seen = 0;
    const count = (): void => {
      for (const line of everything(queue)) {
        const [, missing] = /^gap of .*: (\d+) by /.exec(line) ?? [];
        seen += missing === undefined ? 1 : Number(missing);
      }
    };
    for (let turn = 0; turn < 60; turn += 1) {
      for (const [index, origin] of origins.entries()) {
        for (let line = 0; line < 400 * (index + 1); line += 1) queue.add(long("x"), origin);
        added += 400 * (index + 1);
      }
      pass(turn * 7);
      if (turn % 20 === 19) count();
    }
    queue.endGaps(true);
    count();
    expect(seen).to.equal(added);
    const dropped = queue.droppedLines().reduce((sum, one) => sum + one.count, 0);
    expect(dropped).to.be.greaterThan(0).and.lessThan(added);
  });

  describe("that nobody empties", () => {
    const oneLine = 2_048;
    /** Adds lines of an origin until many are left out; the clock lets its rate be. */
    function fill({ queue, pass }: ReturnType<typeof queueWithClock>, origin?: LineOrigin): number {
      const before = queue.bytes();
      for (let line = 0; line < 16_000; line += 1) {
        queue.add(long("x"), origin);
        pass(origin === "stranger" ? 30 : 2);
      }
      return queue.bytes() - before;
    }

    it("has a bound for each source, and a stranger never takes a subject's place", () => {
      const filled = queueWithClock();
      expect(fill(filled, "stranger")).to.be.within(200 * 1024, logBounds.strangerBytes);
      expect(fill(filled)).to.be.within(1.9 * 1024 ** 2, logBounds.processBytes);
      expect(fill(filled, a)).to.be.within(3.9 * 1024 ** 2, logBounds.subjectBytes / 3 + oneLine);
      for (const source of ["stranger", "process", "subject"]) {
        expect(droppedBy(filled.queue, source, "queue"), source).to.be.greaterThan(0);
      }
    });

    it("has room for a neighbour, whatever a namespace does with all its Pods", () => {
      const filled = queueWithClock();
      let bytes = 0;
      for (let pod = 0; pod < 40; pod += 1) bytes += fill(filled, podOf("team-a", `build-${pod}`));
      expect(bytes).to.be.lessThan(logBounds.subjectBytes / 2 + oneLine);
      expect(fill(filled, b)).to.be.greaterThan(1.9 * 1024 ** 2);
      expect(fill(filled, podOf("team-c", "build"))).to.be.greaterThan(0.6 * 1024 ** 2);
    });

    it("begins a subject's lines again when half of them are written, after the gap's line", () => {
      const filled = queueWithClock();
      const { queue } = filled;
      fill(filled, a);
      queue.add("left out\n", a);
      const missing = droppedBy(queue, "subject", "queue");
      const before = everything(queue);
      expect(before.length + missing).to.equal(16_001);
      queue.add("next\n", a);
      const [gap, next] = everything(queue);
      expect(gap).to.match(new RegExp(`^gap of ${a.subject}: ${missing} by queue in `));
      expect(next).to.equal("next");
    });
  });

  it("tells a bounded number of subjects apart, and forgets those who are quiet", () => {
    const { queue, pass } = queueWithClock();
    const { maxSubjects, subjectBurstLines } = logBounds;
    for (let pod = 0; pod < maxSubjects; pod += 1) queue.add("x\n", podOf("team-a", `${pod}`));
    const beyond = [podOf("team-b", "1"), podOf("team-b", "2")];
    for (const pod of beyond) {
      for (let line = 0; line < subjectBurstLines; line += 1) queue.add("x\n", pod);
    }
    expect(droppedBy(queue, "subject", "rate")).to.equal(subjectBurstLines);
    everything(queue);
    pass(60_000);
    queue.endGaps(false);
    everything(queue);
    for (const pod of beyond) {
      for (let line = 0; line < subjectBurstLines; line += 1) queue.add("x\n", pod);
    }
    expect(droppedBy(queue, "subject", "rate")).to.equal(subjectBurstLines); // none more
  });
});
