import { request } from "node:http";
import { Duplex } from "node:stream";
import { expect } from "chai";
import fc from "fast-check";
import { ChunkReader } from "../../../src/upstream/http-client/chunk-reader.ts";
import { InvalidResponse } from "../../../src/upstream/http-client/message-head.ts";

const latin1 = (text: string): Buffer => Buffer.from(text, "latin1");

interface Read {
  readonly body: string;
  /** What came behind the body. */
  readonly behind: string;
}

/** Reads bytes that come in these pieces. A body that is not whole is `incomplete`. */
function read(pieces: readonly Buffer[]): Read | "incomplete" | "invalid" {
  const reader = new ChunkReader();
  const body: Buffer[] = [];
  try {
    for (const [index, piece] of pieces.entries()) {
      const memory = Buffer.from(piece); // a socket reads into the same memory again
      const behind = reader.read(memory, (content) => body.push(Buffer.from(content)));
      if (behind !== undefined) {
        const rest = Buffer.concat([behind, ...pieces.slice(index + 1)]);
        memory.fill(0);
        return { body: Buffer.concat(body).toString("latin1"), behind: rest.toString("latin1") };
      }
      memory.fill(0);
    }
    return "incomplete";
  } catch (error) {
    expect(error).to.be.an.instanceOf(InvalidResponse);
    return "invalid";
  }
}

/** The body that node:http reads; undefined where it refuses it, or it is not whole. */
async function readByNode(chunks: string): Promise<string | undefined> {
  const connection = new Duplex({
    read: () => undefined,
    write: (_chunk, _encoding, done) => done(),
  });
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const sent = request({ createConnection: () => connection });
  sent.on("response", (response) => {
    let body = "";
    response.setEncoding("latin1").on("data", (text: string) => {
      body += text;
    });
    response.on("error", () => resolve(undefined));
    response.on("end", () => resolve(response.complete ? body : undefined));
  });
  sent.on("error", () => resolve(undefined));
  sent.end();
  connection.push(latin1(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}`));
  connection.push(null);
  const body = await promise;
  sent.destroy();
  return body;
}

const extension = fc.oneof(
  fc.constantFrom(
    "",
    "",
    ";a",
    ";a=b",
    ';a="b;c"',
    ';a="\\""',
    " ; a = b",
    ";a;b=c;d",
    ';a="\xff"',
  ),
  fc.stringMatching(/^(;[a-z0-9!#$%&'*+.^_`|~-]{1,8}(=[A-Za-z0-9-]{1,8})?){0,3}$/),
);
const spelledSize = fc.record({ zeros: fc.nat({ max: 3 }), isUpper: fc.boolean() });
const chunk = fc.record({
  content: fc.uint8Array({ minLength: 1, maxLength: 40 }),
  spelledSize,
  extension,
});
const trailer = fc.constantFrom("X-Trailer: 1", "Digest:", 'ETag: \t"\xe4" ');

function write(size: number, { zeros, isUpper }: { zeros: number; isUpper: boolean }): string {
  const hex = size.toString(16);
  return "0".repeat(zeros) + (isUpper ? hex.toUpperCase() : hex);
}

/** What a chunk writer may send, with the body that it means. */
const written = fc
  .record({
    chunks: fc.array(chunk, { maxLength: 6 }),
    last: fc.record({ spelledSize, extension }),
    trailers: fc.array(trailer, { maxLength: 3 }),
  })
  .map(({ chunks, last, trailers }) => {
    const lines = chunks.map(
      ({ content, spelledSize: spelled, extension: text }) =>
        `${write(content.length, spelled)}${text}\r\n${Buffer.from(content).toString("latin1")}\r\n`,
    );
    const end = `${write(0, last.spelledSize)}${last.extension}\r\n`;
    const tail = trailers.map((line) => `${line}\r\n`).join("");
    return {
      text: `${lines.join("")}${end}${tail}\r\n`,
      body: chunks.map(({ content }) => Buffer.from(content).toString("latin1")).join(""),
    };
  });

const damage = fc.record({
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  removed: fc.nat({ max: 3 }),
  added: fc.oneof(
    fc.constantFrom(
      "\r",
      "\n",
      "\r\n",
      "\0",
      " ",
      "\t",
      ";",
      "=",
      '"',
      "0",
      "f",
      "-",
      "0\r\n\r\n",
      "1\r\nx\r\n",
    ),
    fc.uint8Array({ maxLength: 3 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
  ),
});

describe("ChunkReader", function () {
  this.timeout(20_000);

  it("reads what a chunk writer sends, in whatever pieces it comes, and leaves what stands behind", () => {
    const places = fc.array(fc.nat(), { maxLength: 12 });
    fc.assert(
      fc.property(
        written,
        places,
        fc.constantFrom("", "HTTP/1.1", "\r\n"),
        (sent, cuts, behind) => {
          const bytes = latin1(sent.text + behind);
          const ends = [...cuts.map((place) => place % (bytes.length + 1)), bytes.length].toSorted(
            (one, other) => one - other,
          );
          const pieces = ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
          expect(read(pieces)).to.deep.equal({ body: sent.body, behind });
        },
      ),
      { numRuns: 1000 },
    );
  });

  it("reads it in two pieces that are cut anywhere, and byte by byte", () => {
    const text = '5;a="b"\r\nhello\r\n00a ; x\r\n0123456789\r\n1\r\n!\r\n0;z\r\nX-T: 1\r\n\r\n';
    const bytes = latin1(text);
    const expected = { body: "hello0123456789!", behind: "" };
    for (let at = 0; at <= bytes.length; at += 1) {
      expect(read([bytes.subarray(0, at), bytes.subarray(at)]), `${at}`).to.deep.equal(expected);
      expect(read([bytes.subarray(0, at)])).to.deep.equal(
        at < bytes.length ? "incomplete" : expected,
      );
    }
    expect(read([...bytes].map((byte) => Buffer.of(byte)))).to.deep.equal(expected);
  });

  it("reads no other body than node:http out of chunks that are damaged", async () => {
    let both = 0;
    await fc.assert(
      fc.asyncProperty(
        written,
        fc.array(damage, { minLength: 1, maxLength: 2 }),
        async (sent, all) => {
          let text = sent.text;
          for (const { at, removed, added } of all) {
            const index = Math.floor(at * text.length);
            text = text.slice(0, index) + added + text.slice(index + removed);
          }
          const own = read([latin1(text)]);
          const byNode = await readByNode(text);
          if (typeof own !== "object" || byNode === undefined) return;
          both += 1;
          expect(own.body).to.equal(byNode);
        },
      ),
      { numRuns: 2000 },
    );
    expect(both).to.be.above(100);
  });

  const invalid: readonly (readonly [string, string])[] = [
    ["no size", "\r\n"],
    ["an extension without a size", ";a\r\n"],
    ["a size that is no number", "x\r\n"],
    ["a size with a sign", "+5\r\nhello\r\n"],
    ["a negative size", "-5\r\n"],
    ["a size with a prefix", "0x5\r\nhello\r\n"],
    ["a space before the size", " 5\r\nhello\r\n"],
    ["two sizes", "5 5\r\nhello\r\n"],
    ["a size that no number holds", "fffffffffffffff\r\n"],
    ["a line that ends in LF alone", "5\nhello\r\n"],
    ["a bare CR in a line", "5;a\rb\r\nhello\r\n"],
    ["a bare CR in a quoted text", '5;a="\r"\r\nhello\r\n'],
    ["a quoted text without an end", '5;a="b\r\nhello\r\n'],
    ["an extension without a name", "5;\r\nhello\r\n"],
    ["a NUL in an extension", "5;a\0\r\nhello\r\n"],
    ["a chunk that is longer than it says", "5\r\nhello!\r\n0\r\n\r\n"],
    ["a chunk that ends in LF alone", "5\r\nhello\n0\r\n\r\n"],
    ["a last chunk that ends in LF alone", "0\n\n"],
    ["an end in LF alone", "0\r\n\n"],
    ["a trailer that is no header", "0\r\nX\r\n\r\n"],
    ["a trailer that goes on in the next line", "0\r\nX-A: 1\r\n 2\r\n\r\n"],
    ["a trailer with a bare CR", "0\r\nX-A: 1\rX-B: 2\r\n\r\n"],
    ["a line before a chunk of more than 16 KiB", `5;a=${"b".repeat(16 * 1024)}\r\nhello\r\n`],
    ["a line before a chunk that never ends", `5;a=${"b".repeat(16 * 1024)}`],
    ["trailers of more than 16 KiB", `0\r\n${"X-A: 1234567890\r\n".repeat(2000)}\r\n`],
    ["zeros that never end", "0".repeat(17 * 1024)],
    ["extensions that are longer than the content", `1;a=${"b".repeat(400)}\r\nx\r\n`.repeat(60)],
  ];
  for (const [name, text] of invalid) {
    it(`refuses ${name}`, () => {
      expect(read([latin1(text)])).to.equal("invalid");
      expect(read([...latin1(text)].map((byte) => Buffer.of(byte)))).to.equal("invalid");
    });
  }

  it("reads any number of chunks with short extensions, and of single bytes", () => {
    const signed = `400;chunk-signature=${"a".repeat(64)}\r\n${"x".repeat(1024)}\r\n`;
    const bytes = latin1(`${signed.repeat(3000)}0\r\n\r\n`);
    expect(read([bytes]))
      .to.have.property("body")
      .with.lengthOf(3000 * 1024);
    expect(read([latin1(`${"1\r\nx\r\n".repeat(50_000)}0\r\n\r\n`)]))
      .to.have.property("body")
      .with.lengthOf(50_000);
  });

  it("reads a line that is padded with spaces, as some servers send it", () => {
    const padded = `5${" ".repeat(7)}\r\nhello\r\n0${" ".repeat(16_000)}\r\n\r\n`;
    expect(read([latin1(padded)])).to.deep.equal({ body: "hello", behind: "" });
    expect(read([latin1(`5${" ".repeat(16_000)}!\r\n`)])).to.equal("invalid");
  });
});
