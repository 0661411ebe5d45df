import type { HttpRequest } from "./http-exchange.ts";

const target = /^\/[\x21-\x7e]*$/;
const token = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
const fieldValue = /^[\t\x20-\x7e\x80-\xff]*$/;
/** What would frame a body, or belongs to the connection. */
const refused: ReadonlySet<string> = new Set([
  ...["connection", "content-length", "expect", "host", "transfer-encoding", "upgrade"],
]);

/**
 * The head of a request without a body (RFC 9112, section 3), in latin1.
 * @throws TypeError where something would be read as more than it is; it has been checked long before
 */
export function requestHead({ url, method, headers }: HttpRequest): string {
  const path = url.pathname + url.search;
  if (!target.test(path))
    throw new TypeError("a request target has characters that are not allowed in one");
  let text = `${method} ${path} HTTP/1.1\r\nhost: ${url.host}\r\n`;
  for (const name in headers) {
    const value = headers[name] ?? "";
    if (typeof value === "string") text += headerLine(name, value);
    else for (const one of value) text += headerLine(name, one);
  }
  return `${text}\r\n`;
}

function headerLine(name: string, value: string): string {
  if (!token.test(name) || refused.has(name) || !fieldValue.test(value)) {
    throw new TypeError(
      `a header ${JSON.stringify(name)} has characters that are not allowed in one`,
    );
  }
  return `${name}: ${value}\r\n`;
}
