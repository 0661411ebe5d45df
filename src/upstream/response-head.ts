import type { IncomingHttpHeaders } from "node:http";
import type { AnswerHead } from "./answer.ts";

/** A head that leaves no doubt about where its answer ends. */
export interface ResponseHead extends AnswerHead {
  /** Bytes of the body; undefined where there is none by the kind of answer. */
  readonly length: number | undefined;
  /** Whether another request may follow on the connection. */
  readonly persists: boolean;
}

/** RFC 9112, section 4. */
const statusLine = /^HTTP\/1\.1 ([1-5]\d\d) [\t\x20-\x7e\x80-\xff]*$/;
/** RFC 9110, section 5.6.2. */
const token = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** RFC 9110, section 5.5. */
const fieldValue = /^[\t\x20-\x7e\x80-\xff]*$/;
/** RFC 9110, section 8.6, and no more than a number holds exactly. */
const contentLength = /^\d{1,15}$/;

/**
 * Reads the head of a response to GET or HEAD: the text before the empty line, in latin1.
 * Undefined for everything but the plain case: HTTP/1.1, each line as the grammar has it, no transfer coding,
 * and one Content-Length unless the answer has no body by its kind. There is no guess (RFC 9112, section 11.2).
 */
export function parseResponseHead(text: string, method: string): ResponseHead | undefined {
  const [first = "", ...lines] = text.split("\r\n");
  const status = Number(statusLine.exec(first)?.[1]);
  if (Number.isNaN(status)) return undefined;
  const headers: IncomingHttpHeaders = {};
  let lengths = 0;
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).toLowerCase();
    const value = withoutWhitespace(line, colon + 1);
    if (colon < 1 || !token.test(name) || !fieldValue.test(value)) return undefined;
    if (name === "content-length") lengths += 1;
    addHeader(headers, name, value);
  }
  if (!isUnambiguous(headers, lengths)) return undefined;
  const length = isBodiless(method, status) ? undefined : Number(headers["content-length"]);
  return Number.isNaN(length)
    ? undefined
    : { status, headers, length, persists: persists(headers) };
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
function withoutWhitespace(line: string, from: number): string {
  let [begin, end] = [from, line.length];
  while (begin < end && isWhitespace(line.charCodeAt(begin))) begin += 1;
  while (end > begin && isWhitespace(line.charCodeAt(end - 1))) end -= 1;
  return line.slice(begin, end);
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
