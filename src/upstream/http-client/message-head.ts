import type { IncomingHttpHeaders } from "node:http";
import type { HttpRequest, ResponseHead } from "./http-exchange.ts";

/** A head that leaves no doubt about where its answer ends. */
export interface FramedResponseHead extends ResponseHead {
  /** Bytes of the body; undefined where there is none by the kind of answer. */
  readonly length: number | undefined;
  /** Whether another request may follow on the connection. */
  readonly persists: boolean;
}

/** RFC 9112, section 4. */
const statusLine = /^HTTP\/1\.1 ([1-5]\d\d) [\t\x20-\x7e\x80-\xff]*$/;
/** RFC 9110, section 5.6.2. */
const token = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** What stands neither in a status line nor in a field (RFC 9110, section 5.5), a CR or LF that ends no line among it. */
const unusual = /[^\t\r\n\x20-\x7e\x80-\xff]|\r(?!\n)|(?<!\r)\n/;
/** RFC 9110, section 8.6, and no more than a number holds exactly. */
const contentLength = /^\d{1,15}$/;

/**
 * Reads the head of a response to GET or HEAD: the text before the empty line, in latin1.
 * Undefined for everything but the plain case: HTTP/1.1, each line as the grammar has it, no transfer coding,
 * and one Content-Length unless the answer has no body by its kind. There is no guess (RFC 9112, section 11.2).
 */
export function parseResponseHead(text: string, method: string): FramedResponseHead | undefined {
  if (unusual.test(text)) return undefined;
  let end = endOfLine(text, 0);
  const status = Number(statusLine.exec(text.slice(0, end))?.[1]);
  if (Number.isNaN(status)) return undefined;
  const headers: IncomingHttpHeaders = {};
  let lengths = 0;
  while (end < text.length) {
    const begin = end + "\r\n".length;
    end = endOfLine(text, begin);
    const name = readField(text, begin, end, headers);
    if (name === undefined) return undefined;
    if (name === "content-length") lengths += 1;
  }
  if (!isUnambiguous(headers, lengths)) return undefined;
  const length = isBodiless(method, status) ? undefined : Number(headers["content-length"]);
  return Number.isNaN(length)
    ? undefined
    : { status, headers, length, persists: persists(headers) };
}

/** Adds the field of a line. @returns its name in lower case, undefined where it is none */
function readField(
  text: string,
  begin: number,
  end: number,
  headers: IncomingHttpHeaders,
): string | undefined {
  const colon = text.indexOf(":", begin);
  const name = colon < 0 || colon > end ? undefined : fieldName(text.slice(begin, colon));
  if (name !== undefined) addHeader(headers, name, withoutWhitespace(text, colon + 1, end));
  return name;
}

function endOfLine(text: string, from: number): number {
  const end = text.indexOf("\r\n", from);
  return end < 0 ? text.length : end;
}

/** Names that registries send, as they spell them, with their lower case: there are few. */
const knownNames = new Map<string, string>();
const maxKnownNames = 1_000;

/** A field's name in lower case; undefined where it is none. */
function fieldName(spelt: string): string | undefined {
  const known = knownNames.get(spelt);
  if (known !== undefined) return known;
  if (!token.test(spelt)) return undefined;
  const name = spelt.toLowerCase();
  if (knownNames.size < maxKnownNames) knownNames.set(spelt, name);
  return name;
}

/** RFC 9112, section 6.3. */
const isUnambiguous = (headers: IncomingHttpHeaders, lengths: number): boolean =>
  headers["transfer-encoding"] === undefined &&
  (lengths === 0 || (lengths === 1 && contentLength.test(headers["content-length"] ?? "")));

const isBodiless = (method: string, status: number): boolean =>
  method === "HEAD" || status < 200 || status === 204 || status === 304;

const persists = ({ connection }: IncomingHttpHeaders): boolean =>
  connection === undefined || !/(^|[,\t ])close($|[,\t ])/i.test(connection);

/** Optional whitespace (RFC 9110, section 5.6.3) is a space or a tab, and nothing else that `trim` takes. */
function withoutWhitespace(text: string, from: number, to: number): string {
  let begin = from;
  let end = to;
  while (begin < end && isWhitespace(text.charCodeAt(begin))) begin += 1;
  while (end > begin && isWhitespace(text.charCodeAt(end - 1))) end -= 1;
  return text.slice(begin, end);
}

const isWhitespace = (code: number): boolean => code === 0x20 || code === 0x09;

/** Of these node:http keeps the first one ("message.headers"); a second one means nothing. */
const single: ReadonlySet<string> = new Set([
  ...["age", "authorization", "content-length", "content-type", "etag", "expires", "from", "host"],
  ...["if-modified-since", "if-unmodified-since", "last-modified", "location", "max-forwards"],
  ...["proxy-authorization", "referer", "retry-after", "server", "user-agent"],
]);

/** Adds a header as node:http does; the name in lower case. */
export function addHeader(headers: IncomingHttpHeaders, name: string, value: string): void {
  const before = headers[name];
  if (name === "set-cookie") headers[name] = [...(headers[name] ?? []), value];
  // Not `undefined`: every object has a `constructor`.
  else if (typeof before !== "string") headers[name] = value;
  else if (!single.has(name)) headers[name] = `${before}${name === "cookie" ? "; " : ", "}${value}`;
}

const target = /^\/[\x21-\x7e]*$/;
const lowerCaseToken = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
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
  if (!lowerCaseToken.test(name) || refused.has(name) || !fieldValue.test(value)) {
    throw new TypeError(
      `a header ${JSON.stringify(name)} has characters that are not allowed in one`,
    );
  }
  return `${name}: ${value}\r\n`;
}
