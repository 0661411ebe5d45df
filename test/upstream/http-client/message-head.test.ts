import { expect } from "chai";
import { parseResponseHead } from "../../../src/upstream/http-client/message-head.ts";

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
      persists: true,
    });
  });

  it("keeps all headers of a name, as node:http does", () => {
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
    expect(parseResponseHead(text, "GET")?.headers).to.deep.equal({
      "content-length": "5",
      "www-authenticate": "Basic realm=a, Bearer realm=b",
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

  const notPlain: readonly (readonly [string, ...string[]])[] = [
    ["no length", ok],
    ["HTTP/1.0", "HTTP/1.0 200 OK", five],
    ["HTTP/2", "HTTP/2 200", five],
    ["another protocol", "SSH-2.0-OpenSSH_9.2"],
    ["no reason and no space for it", "HTTP/1.1 200", five],
    ["a status of two digits", "HTTP/1.1 20 OK", five],
    ["a status of four digits", "HTTP/1.1 2000 OK", five],
    ["a status beyond 599", "HTTP/1.1 600 OK", five],
    ["a bare CR in the status line", "HTTP/1.1 200 O\rK", five],
    ["chunks", ok, "Transfer-Encoding: chunked"],
    ["chunks and a length", ok, five, "Transfer-Encoding: chunked"],
    ["a transfer coding that means nothing", ok, five, "Transfer-Encoding: identity"],
    ["two lengths that differ", ok, five, "Content-Length: 6"],
    ["the same length twice", ok, five, five],
    ["a list of lengths", ok, "Content-Length: 5, 5"],
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
      expect(parseResponseHead(head(...lines), "GET")).to.equal(undefined);
    });
  }
});
