/**
 * The URL in a Location header, or in a target of Link, resolved against the one whose response has it. Header fields are
 * bytes, which HTTP clients read as one character each (latin1). Servers that write other letters than ASCII's into a URL
 * write UTF-8 or an older encoding, and mean these bytes, so each is percent-encoded as it is (RFC 3986, section 2.1).
 * @param value as an HTTP client has read it
 * @returns undefined where that is no URL of http or https
 */
export function parseLocation(value: string, requested: URL): URL | undefined {
  const ascii = value.replace(/[\x80-\xff]/g, (byte) => `%${byte.charCodeAt(0).toString(16)}`);
  const url = URL.parse(ascii, requested.href);
  return url !== null && ["http:", "https:"].includes(url.protocol) ? url : undefined;
}
