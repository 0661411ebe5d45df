/** A challenge of a server, by which it says how it wants to be logged in to (RFC 9110, section 11.6.1). */
export interface Challenge {
  /** The authentication scheme in lower case: `bearer`, `basic`. */
  readonly scheme: string;
  /** The parameters, such as `realm`. Names are in lower case. A challenge with a token68 in their place has none. */
  readonly params: ReadonlyMap<string, string>;
}

const token = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
/** What some schemes, such as Negotiate, have in place of parameters (RFC 9110, section 11.2). */
const token68 = /[ \t]+[0-9A-Za-z._~+/-]+=*(?=[ \t]*(?:,|$))/y;
const quoted = /"((?:[^"\\]|\\.)*)"/y;
const separators = /[\s,]*/y;
/** An equals sign, with the whitespace that RFC 9110, section 11.2, has recipients pass over. */
const equals = /[ \t]*=[ \t]*/y;

/**
 * Reads all challenges in the WWW-Authenticate headers of a response: several headers, several challenges
 * in one, quoted texts with commas. What follows something unreadable in a header is left out.
 * @example
 * parseChallenges('Bearer realm="https://auth.test/token",service="harbor"')[0]?.params.get("realm");
 */
export function parseChallenges(headers: string | readonly string[] | undefined): Challenge[] {
  return [headers ?? []].flat().flatMap((header) => parseHeader(headerText(header)));
}

function parseHeader(header: string): Challenge[] {
  const challenges: Challenge[] = [];
  let params = new Map<string, string>();
  let at = 0;
  const take = (expression: RegExp): string | undefined => {
    expression.lastIndex = at;
    const match = expression.exec(header);
    if (match === null) return undefined;
    at = expression.lastIndex;
    return match[1] ?? match[0];
  };
  for (take(separators); at < header.length; take(separators)) {
    const word = take(token);
    if (word === undefined) break;
    if (take(equals) === undefined) {
      params = new Map();
      challenges.push({ scheme: word.toLowerCase(), params });
      take(token68);
      continue;
    }
    const value = take(quoted)?.replace(/\\(.)/g, "$1") ?? take(token);
    if (value === undefined) break;
    params.set(word.toLowerCase(), value);
  }
  return challenges;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The text of a header's value. HTTP clients read each byte as one character (latin1), but servers that write other
 * letters than ASCII's write UTF-8, so bytes that are valid UTF-8 are read as that.
 * @param value as an HTTP client has read it
 */
export function headerText(value: string): string {
  if (!/[\x80-\xff]/.test(value) || /[\u0100-\uffff]/.test(value)) return value;
  try {
    return utf8.decode(Buffer.from(value, "latin1"));
  } catch {
    return value;
  }
}
