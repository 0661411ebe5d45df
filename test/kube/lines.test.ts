import { Readable } from "node:stream";
import { expect } from "chai";
import fc from "fast-check";
import { linesOf } from "../../src/kube/api-client.ts";

const collect = async (chunks: readonly Uint8Array[], longest = 1000): Promise<string[]> => {
  const lines: string[] = [];
  for await (const line of linesOf(Readable.from(chunks), longest)) lines.push(line);
  return lines;
};

describe("linesOf()", () => {
  it("finds the same lines however they are cut into chunks", async () => {
    const line = fc.string({ unit: "grapheme" }).map((text) => text.replaceAll("\n", " "));
    await fc.assert(
      fc.asyncProperty(fc.array(line), fc.array(fc.nat(40)), async (lines, cuts) => {
        const bytes = Buffer.from(lines.map((text) => `${text}\n`).join(""));
        const chunks: Uint8Array[] = [];
        let start = 0;
        for (const length of [...cuts, bytes.length]) {
          chunks.push(bytes.subarray(start, start + length));
          start += length;
        }
        expect(await collect(chunks)).to.deep.equal(lines);
      }),
    );
  });

  it("gives a last line that has no end", async () => {
    expect(await collect([Buffer.from("a\nb")])).to.deep.equal(["a", "b"]);
  });

  it("does not collect an endless line", async () => {
    const chunks = Array.from({ length: 11 }, () => Buffer.alloc(100, "x"));
    const error = await collect(chunks).catch((e: unknown) => e);
    expect(error).to.be.instanceOf(RangeError);
  });
});
