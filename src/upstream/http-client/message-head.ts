/** The heads of HTTP/1.1 messages as text in latin1 (RFC 9112): writes those of requests, and reads those of responses. */
import type { HttpRequest, ResponseHead, ResponseHeaders } from "./http-exchange.ts";

/** The head of a response that leaves no doubt about where its body ends. */
export interface FramedResponseHead extends ResponseHead {
  /**
   * Bytes of the body; undefined where a response of this kind has none, and `Infinity` where the head does not say: the
   * body comes in chunks then, or ends with the connection.
   */
  readonly bodyBytes: number | undefined;
  /** Whether the body comes in chunks (RFC 9112, section 7.1). */
  readonly isChunked: boolean;
  /** Whether another request may follow on the connection. */
  readonly persists: boolean;
}

/** A response that can be read in no way, or in more than one. The message goes on from "its response is not valid HTTP/1.1:". */
export class InvalidResponse extends Error {
  override readonly name = "InvalidResponse";
  readonly code = "INVALID_RESPONSE";
}

/** The status line of RFC 9112, section 4. Some servers leave out the space before a reason that they don't give. */
const statusLine = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?$/;
/** The token of RFC 9110, section 5.6.2. */
const token = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** What stands neither in a status line nor in a field (RFC 9110, section 5.5), a CR or LF that ends no line among it. */
const unusual = /[^\t\r\n\x20-\x7e\x80-\xff]|\r(?!\n)|(?<!\r)\n/;
/** Content-Length as RFC 9110, section 8.6, has it, and no more than a number holds exactly. */
const contentLength = /^\d{1,15}$/;

/**
 * Reads the head of a response. There is no guess (RFC 9112, section 11.2): each line has to be as the grammar has it, the
 * only transfer coding is `chunked`, and that excludes a Content-Length. Equal Content-Lengths are one (section 6.3).
 * @param text what stands before the empty line, in latin1
 * @param method of the request
 * @throws InvalidResponse
 */
export function parseResponseHead(text: string, method: string): FramedResponseHead {
  if (unusual.test(text)) throw new InvalidResponse("its head has a character that none may have");
  const end = endOfLine(text, 0);
  const [, minor, code] = statusLine.exec(text.slice(0, end)) ?? [];
  if (code === undefined) throw new InvalidResponse("it begins with no status line");
  const status = Number(code);
  const headers: ResponseHeaders = {};
  const lengths = readHeaderLines(text, end, headers);
  const lengthBytes = readLength(headers, lengths);
  const isChunked = readTransferCoding(headers, lengthBytes, minor === "1");
  const isBodiless = isWithoutBody(method, status);
  return {
    status,
    headers,
    bodyBytes: isBodiless ? undefined : (lengthBytes ?? Number.POSITIVE_INFINITY),
    isChunked: isChunked && !isBodiless,
    persists:
      minor === "1" && (isBodiless || isChunked || lengthBytes !== undefined) && persists(headers),
  };
}

/**
 * Adds the headers of all lines.
 * @param from the end of the status line
 * @returns the values of all Content-Lengths, with the whitespace around them
 * @throws InvalidResponse
 */
function readHeaderLines(text: string, from: number, headers: ResponseHeaders): string[] {
  const lengths: string[] = [];
  for (let end = from; end < text.length; ) {
    const begin = end + "\r\n".length;
    end = endOfLine(text, begin);
    const name = readHeaderLine(text, begin, end, headers);
    if (name === undefined) throw new InvalidResponse("its head has a line that is no header");
    if (name === "content-length") lengths.push(text.slice(begin + name.length + 1, end));
  }
  return lengths;
}

/**
 * The bytes that a head's Content-Length promises, undefined without one. Where it came several times with the same value,
 * the headers have it once afterwards.
 * @throws InvalidResponse
 */
function readLength(headers: ResponseHeaders, lengths: readonly string[]): number | undefined {
  if (lengths.length === 0) return undefined;
  const first = headers["content-length"] ?? "";
  if (lengths.length === 1 && contentLength.test(first)) return Number(first);
  const values = lengths
    .join(",")
    .split(",")
    .map((value) => withoutWhitespace(value, 0, value.length));
  const [value = ""] = values;
  if (/^0*[1-9]\d{15,}$/.test(value))
    throw new InvalidResponse("its Content-Length is 1 PB or more");
  if (!contentLength.test(value)) throw new InvalidResponse("its Content-Length is no number");
  if (values.some((other) => other !== value)) {
    throw new InvalidResponse("it has several Content-Lengths, which differ");
  }
  headers["content-length"] = value;
  return Number(value);
}

/**
 * Whether a body comes in chunks.
 * @throws InvalidResponse where it has another transfer coding, or a length besides (RFC 9112, section 6.1)
 */
function readTransferCoding(
  { "transfer-encoding": coding }: ResponseHeaders,
  lengthBytes: number | undefined,
  isHttp11: boolean,
): boolean {
  if (coding === undefined) return false;
  if (coding.toLowerCase() !== "chunked" || !isHttp11) {
    throw new InvalidResponse("its Transfer-Encoding is another one than chunked");
  }
  if (lengthBytes !== undefined) {
    throw new InvalidResponse("it has a Transfer-Encoding and a Content-Length");
  }
  return true;
}

/**
 * Adds the header of a line.
 * @returns its name in lower case; undefined where the line is no header
 */
function readHeaderLine(
  text: string,
  begin: number,
  end: number,
  headers: ResponseHeaders,
): string | undefined {
  const colon = text.indexOf(":", begin);
  const name = colon < 0 || colon > end ? undefined : headerName(text.slice(begin, colon));
  if (name !== undefined) addHeader(headers, name, withoutWhitespace(text, colon + 1, end));
  return name;
}

function endOfLine(text: string, from: number): number {
  const end = text.indexOf("\r\n", from);
  return end < 0 ? text.length : end;
}

/**
 * Names of headers as servers spell them, with their lower case: there are few. Every header of every response is looked
 * up here, so this is a plain Map, which is faster than an LRUCache. A full one takes no more names; any others are
 * checked each time.
 */
const knownNames = new Map<string, string>();
const maxKnownNames = 1_000;

/** The name of a header in lower case; undefined where it is no name. */
function headerName(spelling: string): string | undefined {
  const known = knownNames.get(spelling);
  if (known !== undefined) return known;
  if (!token.test(spelling)) return undefined;
  const name = spelling.toLowerCase();
  if (knownNames.size < maxKnownNames) knownNames.set(spelling, name);
  return name;
}

const isWithoutBody = (method: string, status: number): boolean =>
  method === "HEAD" || status < 200 || status === 204 || status === 304;

const persists = ({ connection }: ResponseHeaders): boolean =>
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

/** Headers that have one value. Of several, node:http keeps the first ("message.headers"). */
const singleHeaders: ReadonlySet<string> = new Set([
  "age",
  "authorization",
  "content-length",
  "content-type",
  "etag",
  "expires",
  "from",
  "host",
  "if-modified-since",
  "if-unmodified-since",
  "last-modified",
  "location",
  "max-forwards",
  "proxy-authorization",
  "referer",
  "retry-after",
  "server",
  "user-agent",
]);

/**
 * Adds a header to others as node:http does, where several of one name are joined or dropped; several WWW-Authenticate are
 * a list.
 * @param name in lower case
 */
export function addHeader(headers: ResponseHeaders, name: string, value: string): void {
  const before = headers[name];
  if (name === "set-cookie") headers[name] = [...(headers[name] ?? []), value];
  else if (name === "www-authenticate" && before !== undefined)
    headers[name] = [before, value].flat();
  // Not `undefined`: every object has a `constructor`.
  else if (typeof before !== "string") headers[name] = value;
  else if (!singleHeaders.has(name))
    headers[name] = `${before}${name === "cookie" ? "; " : ", "}${value}`;
}

const target = /^\/[\x21-\x7e]*$/;
const lowerCaseToken = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
const fieldValue = /^[\t\x20-\x7e\x80-\xff]*$/;
/** Headers of a request that would frame a body, or that belong to the connection. */
const connectionHeaders: ReadonlySet<string> = new Set([
  "connection",
  "content-length",
  "expect",
  "host",
  "transfer-encoding",
  "upgrade",
]);

/** Methods whose requests have a Content-Length even where they have no body (RFC 9110, section 8.6). */
const methodsWithBody: ReadonlySet<string> = new Set(["PATCH", "POST", "PUT"]);

/**
 * Writes the head of a request (RFC 9112, section 3).
 * @returns the head with its empty line, in latin1
 * @throws TypeError where the target or a header has characters that would let it be read as more than one. Requests
 *   were checked long before, so this is the last barrier.
 */
export function formatRequestHead({ url, method, headers, body }: HttpRequest): string {
  const path = url.pathname + url.search;
  if (!target.test(path)) {
    throw new TypeError("a request target has characters that are not allowed in one");
  }
  let text = `${method} ${path} HTTP/1.1\r\nhost: ${url.host}\r\n`;
  for (const name in headers) {
    const value = headers[name] ?? "";
    if (typeof value === "string") text += headerLine(name, value);
    else for (const one of value) text += headerLine(name, one);
  }
  if (body !== undefined || methodsWithBody.has(method)) {
    text += `content-length: ${body?.length ?? 0}\r\n`;
  }
  return `${text}\r\n`;
}

/**
 * Writes the head of a request for a proxy that passes it on: with the whole URL, and the login at the proxy (RFC 9112,
 * section 3.2.2).
 * @param headText of {@link formatRequestHead}
 * @param authorization the value of Proxy-Authorization, where there is one
 */
export function asProxyRequest(
  headText: string,
  origin: string,
  authorization: string | undefined,
): string {
  const target = headText.indexOf(" ") + 1;
  const fields = headText.indexOf("\r\n") + 2;
  const login = authorization === undefined ? "" : headerLine("proxy-authorization", authorization);
  return `${headText.slice(0, target)}${origin}${headText.slice(target, fields)}${login}${headText.slice(fields)}`;
}

function headerLine(name: string, value: string): string {
  if (!lowerCaseToken.test(name) || connectionHeaders.has(name) || !fieldValue.test(value)) {
    throw new TypeError(
      `a header ${JSON.stringify(name)} has characters that are not allowed in one`,
    );
  }
  return `${name}: ${value}\r\n`;
}
