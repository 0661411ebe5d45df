import { expect } from "chai";
import { rawRequest } from "../../support/raw-request.ts";
import { head, twoTenants } from "./two-tenants.ts";

describe("one tenant against another, by a request within a request", function () {
  this.timeout(20_000);
  const stage = twoTenants();

  const inner = head(
    "/v2/private/app/tags/list",
    ...["Host: x", "Authorization: Bearer y", "OCI-Inner: yes"],
  );
  const lastChunk = "0\r\n\r\n";
  const tags = "/v2/namespaces/team-a/connectors/attacker/app/tags/list";
  const uploads = "/v2/namespaces/team-a/connectors/attacker/app/blobs/uploads/";
  const chunked = "Transfer-Encoding: chunked";

  /** A request with these lines in its head, and what follows it on the wire; it begins an upload unless it says otherwise. */
  type Attempt = readonly [
    name: string,
    lines: readonly string[],
    body: string,
    requestLine?: string,
  ];
  const attempts: readonly Attempt[] = [
    ["both lengths, chunked first", [chunked, "Content-Length: 5"], lastChunk + inner],
    ["both lengths, chunked last", ["Content-Length: 5", chunked], lastChunk + inner],
    ["two lengths", ["Content-Length: 0", "Content-Length: 99"], inner],
    ["two lengths in one", ["Content-Length: 0, 99"], inner],
    ["a length with a sign", ["Content-Length: +0"], inner],
    ["a length in hex", ["Content-Length: 0x0"], inner],
    ["a length before a space", ["Content-Length : 99"], inner],
    ["a coding that is none", ["Transfer-Encoding: xchunked"], inner],
    ["a coding in quotes", ['Transfer-Encoding: "chunked"'], inner],
    ["chunked, and not last", ["Transfer-Encoding: chunked, identity"], inner],
    ["a second coding", ["Transfer-Encoding: gzip, chunked"], lastChunk + inner],
    ["chunked twice", [chunked, chunked], lastChunk + inner],
    ["a coding that is continued", ["Transfer-Encoding:", " chunked", "Content-Length: 0"], inner],
    ["a coding behind a tab", ["Transfer-Encoding:\tchunked", "Content-Length: 0"], inner],
    ["a coding behind a vertical tab", ["Transfer-Encoding: \x0bchunked"], lastChunk + inner],
    ["a bare CR in a header", ["X: a\r\rOCI-Inner: yes", "Content-Length: 0"], ""],
    ["a bare LF in a header", ["X: a\nOCI-Inner: yes", "Content-Length: 0"], ""],
    ["a zero byte in a header", ["X: a\0OCI-Inner: yes", "Content-Length: 0"], ""],
    ["a chunk size with more behind it", [chunked], `0;\n${inner}\r\n\r\n`],
    ["a chunk size that overflows", [chunked], `fffffffffffffff01\r\nx\r\n${lastChunk}${inner}`],
    ["a chunk that ends in a bare LF", [chunked], `1\nx\n0\n\n${inner}`],
    ["trailers", [chunked], "0\r\nOCI-Inner: yes\r\nAuthorization: Bearer y\r\n\r\n"],
    ["a length in the trailers", [chunked], `0\r\nContent-Length: 99\r\n\r\n${inner}`],
    ["a space within the target", [], "", `GET ${tags} ${tags}`],
    [
      "a request in the query",
      [],
      "",
      `GET ${tags}?x=%20HTTP/1.1%0d%0aOCI-Inner:%20yes%0d%0a%0d%0a`,
    ],
    ["a length with GET", [`Content-Length: ${inner.length}`], inner, `GET ${tags}`],
    ["another protocol", ["Connection: upgrade", "Upgrade: h2c"], inner],
    [
      "the beginning of HTTP/2",
      [],
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      `POST ${uploads} HTTP/1.1\r\nHost: x\r\n\r\nGET x`,
    ],
  ];
  for (const [name, lines, body, requestLine = `POST ${uploads}`] of attempts) {
    it(`gets nothing: ${name}`, async () => {
      const bytes = head(requestLine, "Host: x", stage.authorized(), ...lines) + body;
      const { text } = await rawRequest({ port: stage.port() }, bytes, { timeout: 150 });
      stage.expectNothingOfAlice(text);
      for (const { headers, target } of stage.registry.requests) {
        expect(headers).to.not.have.property("oci-inner");
        expect(target.repository).to.not.match(/^private/);
      }
    });
  }
});
