import { type IncomingMessage, request } from "node:http";
import { Duplex } from "node:stream";
import { expect } from "chai";
import fc from "fast-check";
import { ChunkReader } from "../../../src/upstream/http-client/chunk-reader.ts";
import { HeadReader } from "../../../src/upstream/http-client/head-reader.ts";
import {
  type FramedResponseHead,
  InvalidResponse,
} from "../../../src/upstream/http-client/message-head.ts";

const most = 64 * 1024;

/** What was read of an answer: what a client would make of it. */
interface Answer {
  readonly status: number;
  readonly headers: unknown;
  readonly body: string;
}

/** `more`: than the answer has promised, which is for the connection to refuse. */
type Verdict = Answer | "odd" | "incomplete" | "more" | "refused";

/** Reads an answer that comes in these pieces, and its body, which may end with them. */
function read(pieces: readonly Buffer[], method: string): Verdict {
  const reader = new HeadReader(most);
  try {
    for (const [index, piece] of pieces.entries()) {
      // A socket reads into the same memory again.
      const found = reader.read(Buffer.from(piece), method);
      if (found === undefined) continue;
      return readBody(found.head, [found.rest, ...pieces.slice(index + 1)]);
    }
    return "incomplete";
  } catch (error) {
    if (error instanceof InvalidResponse) return "odd";
    throw error;
  }
}

/** @throws InvalidResponse */
function readBody(head: FramedResponseHead, pieces: readonly Buffer[]): Verdict {
  const { status, headers, bodyBytes = 0, isChunked } = head;
  const body = Buffer.concat(pieces);
  if (isChunked) {
    const content: Buffer[] = [];
    const chunks = new ChunkReader();
    const behind = chunks.read(body, (chunk) => content.push(chunk));
    if (behind === undefined) return "incomplete";
    if (behind.length > 0) return "more";
    return { status, headers, body: Buffer.concat(content).toString("latin1") };
  }
  const lengthBytes = bodyBytes === Number.POSITIVE_INFINITY ? body.length : bodyBytes;
  if (body.length > lengthBytes) return "more";
  return body.length < lengthBytes
    ? "incomplete"
    : { status, headers, body: body.toString("latin1") };
}

/** The same by node:http, over a connection that is made of memory. */
async function readByNode(bytes: Buffer, method: string): Promise<Verdict> {
  const connection = new Duplex({
    read: () => undefined,
    write: (_chunk, _encoding, done) => done(),
  });
  const { promise, resolve } = Promise.withResolvers<Verdict>();
  const sent = request({ method, createConnection: () => connection });
  sent.on("response", (response) => {
    let body = "";
    response.setEncoding("latin1").on("data", (text: string) => {
      body += text;
    });
    response.on("error", () => resolve("refused"));
    response.on("end", () => {
      const { statusCode: status = 0 } = response;
      resolve(response.complete ? { status, headers: headersOf(response), body } : "incomplete");
    });
  });
  sent.on("upgrade", () => resolve("refused"));
  sent.on("error", () => resolve("refused"));
  sent.end();
  connection.push(bytes);
  connection.push(null);
  const verdict = await promise;
  sent.destroy();
  return verdict;
}

/** The headers as the client of our own has them, which joins no challenges. */
function headersOf({ headers, headersDistinct }: IncomingMessage): object {
  const challenges = headersDistinct["www-authenticate"] ?? [];
  return challenges.length < 2 ? { ...headers } : { ...headers, "www-authenticate": challenges };
}

const latin1 = (text: string): Buffer => Buffer.from(text, "latin1");

const name = fc.oneof(
  fc.constantFrom(
    "ETag",
    "Content-Type",
    "Location",
    "WWW-Authenticate",
    "Set-Cookie",
    "Link",
    "Server",
    "Docker-Content-Digest",
    "constructor",
    "toString",
    "__proto__",
    "Connection",
    "X-A",
  ),
  fc.stringMatching(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}$/),
);
const value = fc
  .oneof(
    fc.stringMatching(/^[\t\x20-\x7e\x80-\xff]{0,30}$/),
    fc.constantFrom("close", "keep-alive", "", " ", "\xa0x\xa0", "\v"[0] ?? ""),
  )
  .filter((text) => !/[^\t\x20-\x7e\x80-\xff]/.test(text));
const isOfFraming = (text: string): boolean =>
  /^(content-length|transfer-encoding|upgrade|trailer)$/i.test(text);
const header = fc.record({ name: name.filter((text) => !isOfFraming(text)), value });
const reason = fc.stringMatching(/^[\t\x20-\x7e\x80-\xff]{0,20}$/);

/** An answer of the plain kind, as a registry sends it. */
const plainAnswer = fc
  .record({
    method: fc.constantFrom("GET", "HEAD"),
    informational: fc.array(fc.constantFrom(100, 102, 103), { maxLength: 3 }),
    status: fc.constantFrom(200, 206, 204, 304, 401, 404, 416, 429, 500, 503, 599),
    reason,
    before: fc.array(header, { maxLength: 6 }),
    after: fc.array(header, { maxLength: 6 }),
    body: fc.uint8Array({ maxLength: 40 }),
  })
  .map(({ method, informational, status, reason, before, after, body }) => {
    const isBodiless = method === "HEAD" || status === 204 || status === 304;
    const first = informational.map((code) => `HTTP/1.1 ${code} Wait\r\nX-A: 1\r\n\r\n`).join("");
    const lines = [
      ...before.map(({ name, value }) => `${name}:${value}`),
      `Content-Length: ${body.length}`,
      ...after.map(({ name, value }) => `${name}: ${value} `),
    ];
    const text = `${first}HTTP/1.1 ${status} ${reason}\r\n${lines.join("\r\n")}\r\n\r\n`;
    return { method, text: text + (isBodiless ? "" : Buffer.from(body).toString("latin1")) };
  });

/** What turns an answer into one that is odd, or hostile. */
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
      ":",
      ",",
      "\x7f",
      "\xff",
      "0",
      "-",
      "close",
      "\r\n ",
      "\r\n\t",
      "\r\n\r\n",
      "\n\n",
      " :",
      "HTTP/1.1 200 OK\r\n\r\n",
      "\r\nContent-Length: 3",
      "\r\nContent-Length: 3\r\n",
      "\r\nTransfer-Encoding: chunked\r\n",
      "\r\nTransfer-Encoding : x\r\n",
      "\r\ncontent-length: 1, 1\r\n",
      "\r\nConnection: close\r\n",
    ),
    fc.uint8Array({ maxLength: 3 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
  ),
});

const damaged = fc
  .record({ answer: plainAnswer, damages: fc.array(damage, { minLength: 1, maxLength: 3 }) })
  .map(({ answer: { method, text }, damages }) => {
    let left = text;
    for (const { at, removed, added } of damages) {
      const index = Math.floor(at * left.length);
      left = left.slice(0, index) + added + left.slice(index + removed);
    }
    return { method, text: left };
  });

/** Cuts bytes into pieces. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const ends = [...places.map((place) => place % (bytes.length + 1)), bytes.length];
  const sorted = ends.toSorted((one, other) => one - other);
  return sorted
    .map((end, index) => bytes.subarray(sorted[index - 1] ?? 0, end))
    .filter(({ length }) => length > 0);
}

describe("HeadReader", function () {
  this.timeout(20_000);

  it("reads every plain answer as node:http does", async () => {
    await fc.assert(
      fc.asyncProperty(plainAnswer, async ({ method, text }) => {
        const bytes = latin1(text);
        const verdict = read([bytes], method);
        expect(verdict).to.be.an("object");
        expect(verdict).to.deep.equal(await readByNode(bytes, method));
      }),
      { numRuns: 300 },
    );
  });

  it("reads nothing that node:http reads otherwise, or refuses", async () => {
    const counts = { read: 0, odd: 0, incomplete: 0, more: 0, refused: 0 };
    await fc.assert(
      fc.asyncProperty(damaged, async ({ method, text }) => {
        const bytes = latin1(text);
        const verdict = read([bytes], method);
        counts[typeof verdict === "object" ? "read" : verdict] += 1;
        if (typeof verdict !== "object") return;
        const byNode = await readByNode(bytes, method);
        // node:http refuses equal lengths, which are one (RFC 9112, section 6.3).
        const isRepeated =
          (text.match(/content-length/gi)?.length ?? 0) > 1 || /:[ \d]+,/.test(text);
        if (byNode !== "refused" || !isRepeated) expect(byNode).to.deep.equal(verdict);
      }),
      { numRuns: 2000 },
    );
    const { read: whole, odd, incomplete, more } = counts;
    expect(Math.min(whole, odd, incomplete, more)).to.be.above(0);
  });

  it("reads an answer alike in whatever pieces it comes", () => {
    const pieces = fc.array(fc.nat(), { maxLength: 12 });
    fc.assert(
      fc.property(fc.oneof(plainAnswer, damaged), pieces, ({ method, text }, places) => {
        const bytes = latin1(text);
        const whole = read([bytes], method);
        const inPieces = read(cut(bytes, places), method);
        // A bare LF may be seen before the head is whole, and then it is not waited for.
        if (whole === "incomplete") expect(inPieces).to.be.oneOf(["incomplete", "odd"]);
        else expect(inPieces).to.deep.equal(whole);
        if (inPieces === "odd" && whole === "incomplete") expect(text).to.match(/(^|[^\r])\n/);
      }),
      { numRuns: 1000 },
    );
  });

  it("reads an answer byte by byte", () => {
    fc.assert(
      fc.property(plainAnswer, ({ method, text }) => {
        const bytes = latin1(text);
        const single = [...bytes].map((byte) => Buffer.of(byte));
        expect(read(single, method)).to.deep.equal(read([bytes], method));
      }),
    );
  });

  it("reads one answer after the other", () => {
    const reader = new HeadReader(most);
    const bytes = latin1("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    for (let time = 0; time < 3; time += 1) {
      expect(reader.isEmpty).to.equal(true);
      expect(reader.read(bytes.subarray(0, 10 * time), "GET")).to.equal(undefined);
      expect(reader.isEmpty).to.equal(time === 0);
      expect(reader.read(bytes.subarray(10 * time), "GET")?.head.status).to.equal(200);
    }
  });

  it("passes over some informational answers, and not over all that may come", () => {
    const informational = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    const final = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    expect(read([latin1(informational.repeat(8) + final)], "GET")).to.include({ status: 200 });
    expect(read([latin1(informational.repeat(9) + final)], "GET")).to.equal("odd");
    const pieces = Array.from({ length: 9 }, () => latin1(informational));
    expect(read(pieces, "GET")).to.equal("odd");
    expect(read([latin1("HTTP/1.1 101 Switching Protocols\r\n\r\n")], "GET")).to.equal("odd");
  });

  for (const [kind, size] of [
    ["at once", 70_000],
    ["in pieces", 1000],
    ["byte by byte", 1],
  ] as const) {
    it(`holds no head of more than 64 KiB that comes ${kind}`, () => {
      const line = `X-A: ${"a".repeat(1000)}\r\n`;
      const long = latin1(`HTTP/1.1 200 OK\r\n${line.repeat(66)}`);
      const feed = (): void => {
        const reader = new HeadReader(most);
        for (let from = 0; from < long.length; from += size) {
          reader.read(long.subarray(from, from + size), "GET");
        }
        if (size > long.length) reader.read(latin1("\r\n"), "GET");
      };
      expect(feed).to.throw("the head of the response is too long");
    });
  }

  it("reads a head of almost 64 KiB", () => {
    const line = `X-A: ${"a".repeat(1000)}\r\n`;
    const long = latin1(`HTTP/1.1 200 OK\r\n${line.repeat(64)}Content-Length: 0\r\n\r\n`);
    expect(long.length).to.be.within(64_000, most);
    expect(read([long], "GET")).to.include({ status: 200 });
    expect(read([long.subarray(0, 30_000), long.subarray(30_000)], "GET")).to.include({
      status: 200,
    });
  });
});
