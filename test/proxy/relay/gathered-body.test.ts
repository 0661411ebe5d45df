import { PassThrough, Writable } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { expect } from "chai";
import { GatheredBody } from "../../../src/proxy/relay/upload.ts";
import { BufferBudget } from "../../../src/upstream/http-client/body-buffers.ts";

const chunkSize = 16 * 1024;

describe("GatheredBody", () => {
  let budget: BufferBudget;
  let request: PassThrough;
  let written: Buffer[];
  let finishWrites: (() => void)[];
  let to: Writable;

  beforeEach(() => {
    budget = new BufferBudget(4 * chunkSize); // two buffers of twice a chunk, for one body
    request = new PassThrough({ highWaterMark: 100 * chunkSize });
    written = [];
    finishWrites = [];
    to = new Writable({
      write(chunk, _encoding, done) {
        written.push(Buffer.from(chunk));
        finishWrites.push(done);
      },
    });
    new GatheredBody(request, budget).pipe(to);
  });
  afterEach(() => {
    request.destroy();
    to.destroy();
  });

  const chunks = (count: number): Buffer[] =>
    Array.from({ length: count }, (_, index) => Buffer.alloc(chunkSize, index));
  const finishAll = async (): Promise<void> => {
    while (finishWrites.length > 0) {
      finishWrites.shift()?.();
      await turn();
    }
  };
  const sizes = () => written.map(({ length }) => length / chunkSize);

  it("writes at once what comes in one turn", async () => {
    for (const chunk of ["one", "two", "three"]) request.write(chunk);
    await turn();
    expect(String(written)).to.equal("onetwothree");
  });

  it("holds back what does not fit until the other side has taken some", async () => {
    for (const chunk of chunks(10)) request.write(chunk);
    await turn();
    await turn();
    expect(request.isPaused()).to.equal(true);
    expect(request.readableLength).to.equal(6 * chunkSize);
    await finishAll();
    expect(sizes()).to.deep.equal([2, 2, 2, 2, 2]);
    expect(Buffer.concat(written)).to.deep.equal(Buffer.concat(chunks(10)));
  });

  it("writes what is left before it ends", async () => {
    request.end("short");
    await turn();
    await finishAll();
    expect(String(written)).to.equal("short");
    expect(to.writableFinished).to.equal(true);
  });

  for (const [how, end] of [
    ["whole", () => request.end("x")],
    ["cut by the other side", () => to.destroy()],
  ] as const) {
    it(`leaves its share of the memory to others once it is ${how}`, async () => {
      expect(budget.size).to.equal(2 * chunkSize);
      budget.begin();
      expect(budget.size).to.equal(chunkSize);
      end();
      await turn();
      await finishAll();
      expect(budget.size).to.equal(2 * chunkSize);
    });
  }
});
