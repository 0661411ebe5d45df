import { expect } from "chai";
import {
  InvalidResponse,
  parseResponseHead,
} from "../../../src/upstream/http-client/message-head.ts";

const head = (...lines: readonly string[]): string => lines.join("\r\n");
const ok = "HTTP/1.1 200 OK";
const five = "Content-Length: 5";

describe("parseResponseHead()", () => {
  it("reads the status, the headers, and how long the body is", () => {
    const text = head(ok, five, 'ETag: "x"', "X-Empty:", "x-padded: \t a b \t");
    expect(parseResponseHead(text, "GET")).to.deep.equal({
      status: 200,
      headers: { "content-length": "5", etag: '"x"', "x-empty": "", "x-padded": "a b" },
      bodyBytes: 5,
      isChunked: false,
      persists: true,
    });
  });

  it("keeps all headers of a name, as node:http does, and challenges as a list", () => {
    const text = head(
      ok,
      five,
      "WWW-Authenticate: Basic realm=a",
      "www-authenticate: Bearer realm=b",
      "Set-Cookie: a",
      "Set-Cookie: b",
      "Location: /1",
      "Location: /2",
      "Constructor: x",
    );
    expect(parseResponseHead(text, "GET").headers).to.deep.equal({
      "content-length": "5",
      "www-authenticate": ["Basic realm=a", "Bearer realm=b"],
      "set-cookie": ["a", "b"],
      location: "/1",
      constructor: "x",
    });
  });

  const bodiless: readonly (readonly [string, string])[] = [
    ["HEAD", ok],
    ["GET", "HTTP/1.1 204 No Content"],
    ["GET", "HTTP/1.1 304 Not Modified"],
    ["GET", "HTTP/1.1 103 Early Hints"],
  ];
  for (const [method, status] of bodiless) {
    it(`expects no body of ${status} to ${method}, with a length and without`, () => {
      for (const lines of [[], ["Content-Length: 5000"]]) {
        const parsed = parseResponseHead(head(status, ...lines), method);
        expect(parsed).to.include({ bodyBytes: undefined });
      }
    });
  }

  const closing = ["close", "Close", "keep-alive, close", "close,x", "x , close"];
  for (const value of closing) {
    it(`lets nothing follow Connection: ${value}`, () => {
      const text = head(ok, five, `Connection: ${value}`);
      expect(parseResponseHead(text, "GET")).to.include({ persists: false });
    });
  }
  for (const value of ["keep-alive", "x-close", "closed"]) {
    it(`lets others follow Connection: ${value}`, () => {
      const text = head(ok, five, `Connection: ${value}`);
      expect(parseResponseHead(text, "GET")).to.include({ persists: true });
    });
  }

  const equalLengths: readonly (readonly string[])[] = [
    [five, five],
    [five, "content-length:\t5 "],
    ["Content-Length: 5, 5"],
    ["Content-Length: 5 ,5", five],
    [five, "X-A: 1", five, five],
  ];
  for (const lines of equalLengths) {
    it(`takes ${lines.join(" and ")} for one length`, () => {
      const parsed = parseResponseHead(head(ok, ...lines), "GET");
      expect(parsed).to.deep.include({ bodyBytes: 5, isChunked: false, persists: true });
      expect(parsed.headers["content-length"]).to.equal("5");
    });
  }

  const unsaid = Number.POSITIVE_INFINITY;
  const framings: readonly (readonly [string, readonly string[], object])[] = [
    [
      "chunks",
      [ok, "Transfer-Encoding: chunked"],
      { bodyBytes: unsaid, isChunked: true, persists: true },
    ],
    [
      "chunks in another spelling",
      [ok, "transfer-encoding: Chunked"],
      { bodyBytes: unsaid, isChunked: true, persists: true },
    ],
    [
      "chunks on a connection that ends",
      [ok, "Transfer-Encoding: chunked", "Connection: close"],
      { bodyBytes: unsaid, isChunked: true, persists: false },
    ],
    [
      "no length: the body ends with the connection",
      [ok],
      { bodyBytes: unsaid, isChunked: false, persists: false },
    ],
    ["HTTP/1.0", ["HTTP/1.0 200 OK", five], { bodyBytes: 5, isChunked: false, persists: false }],
    [
      "HTTP/1.0 that would keep the connection",
      ["HTTP/1.0 200 OK", five, "Connection: keep-alive"],
      { bodyBytes: 5, isChunked: false, persists: false },
    ],
    [
      "no reason and no space for it",
      ["HTTP/1.1 200", five],
      { bodyBytes: 5, isChunked: false, persists: true },
    ],
    [
      "a status beyond 599",
      ["HTTP/1.1 999 No", five],
      { status: 999, bodyBytes: 5, isChunked: false, persists: true },
    ],
  ];
  for (const [name, lines, expected] of framings) {
    it(`reads ${name}`, () => {
      expect(parseResponseHead(head(...lines), "GET")).to.include(expected);
    });
  }

  it("expects no body in chunks of a response without one", () => {
    const text = head(ok, "Transfer-Encoding: chunked");
    expect(parseResponseHead(text, "HEAD")).to.include({
      bodyBytes: undefined,
      isChunked: false,
      persists: true,
    });
  });

  const notPlain: readonly (readonly [string, ...string[]])[] = [
    ["HTTP/2", "HTTP/2 200", five],
    ["another protocol", "SSH-2.0-OpenSSH_9.2"],
    ["a status of two digits", "HTTP/1.1 20 OK", five],
    ["a status of four digits", "HTTP/1.1 2000 OK", five],
    ["a bare CR in the status line", "HTTP/1.1 200 O\rK", five],
    ["chunks and a length", ok, five, "Transfer-Encoding: chunked"],
    ["a transfer coding that means nothing", ok, five, "Transfer-Encoding: identity"],
    ["chunks and a length before them", ok, "Transfer-Encoding: chunked", five],
    ["chunks twice", ok, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ["chunks in chunks", ok, "Transfer-Encoding: chunked, chunked"],
    ["chunks of another coding", ok, "Transfer-Encoding: gzip, chunked"],
    ["chunks that may be others", ok, "Transfer-Encoding: xchunked"],
    ["chunks with a parameter", ok, "Transfer-Encoding: chunked;q=1"],
    ["an empty transfer coding", ok, "Transfer-Encoding:"],
    ["chunks by HTTP/1.0", "HTTP/1.0 200 OK", "Transfer-Encoding: chunked"],
    ["a status below 100", "HTTP/1.1 099 OK", five],
    ["two lengths that differ", ok, five, "Content-Length: 6"],
    ["two lengths that differ, of which the second is no number", ok, five, "Content-Length: x"],
    ["two lengths that differ in their zeros", ok, five, "Content-Length: 05"],
    ["a list of lengths that differ", ok, "Content-Length: 5, 6"],
    ["a list of lengths with a gap", ok, "Content-Length: 5,,5"],
    ["a list of lengths with an end", ok, "Content-Length: 5,"],
    ["two equal ones that are no numbers", ok, "Content-Length: x", "Content-Length: x"],
    ["two equal ones that are empty", ok, "Content-Length:", "Content-Length:"],
    ["a length with a sign", ok, "Content-Length: +5"],
    ["a negative length", ok, "Content-Length: -5"],
    ["a length in hexadecimal", ok, "Content-Length: 0x5"],
    ["a length with an exponent", ok, "Content-Length: 5e3"],
    ["a length with a fraction", ok, "Content-Length: 5.0"],
    ["an empty length", ok, "Content-Length:"],
    ["a length that no number holds", ok, "Content-Length: 10000000000000000"],
    ["a space before the colon", ok, "Content-Length : 5"],
    ["a folded line", ok, five, "X-A: 1", " 2"],
    ["a folded line with a tab", ok, five, "X-A: 1", "\t2"],
    ["a folded line with a colon", ok, five, "X-A: 1", " X-B: 2"],
    ["no colon", ok, five, "X-A"],
    ["no name", ok, five, ": x"],
    ["a name with a space", ok, five, "X A: x"],
    ["a name with a parenthesis", ok, five, "X(A): x"],
    ["a name beyond ASCII", ok, five, "X\xe4: x"],
    ["a bare CR", ok, five, "X-A: 1\rX-B: 2"],
    ["a bare LF", ok, five, "X-A: 1\nX-B: 2"],
    ["a NUL", ok, five, "X-A: 1\0"],
    ["a DEL", ok, five, "X-A: 1\x7f"],
    ["an empty line before it", "", ok, five],
  ];
  for (const [name, ...lines] of notPlain) {
    it(`reads nothing with ${name}`, () => {
      for (const method of ["GET", "HEAD"]) {
        expect(() => parseResponseHead(head(...lines), method)).to.throw(InvalidResponse);
      }
    });
  }
});
