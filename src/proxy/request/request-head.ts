import type { IncomingMessage } from "node:http";
import { connectionTokens } from "../headers.ts";
import { RegistryError } from "../registry-error.ts";

/**
 * Headers that say who asks, whom, and where a body ends. One that is there twice, or that `Connection` takes back, can
 * be read in two ways; the parser sees to the lengths.
 */
const singletonHeaders: ReadonlySet<string> = new Set([
  "authorization",
  "content-length",
  "content-range",
  "host",
  "proxy-authorization",
  "transfer-encoding",
]);

/**
 * Refuses a head that somebody else may read in another way, before anything of it goes on.
 * @throws RegistryError 400
 */
export function checkHead({ rawHeaders, headers }: IncomingMessage): void {
  let seen = ",";
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]?.toLowerCase() ?? "";
    if (!singletonHeaders.has(name)) continue;
    if (seen.includes(`,${name},`)) throw ambiguous(`the header ${name} appears twice`);
    seen += `${name},`;
  }
  for (const name of connectionTokens(headers.connection)) {
    if (singletonHeaders.has(name)) throw ambiguous(`Connection names the header ${name}`);
  }
  // RFC 9110, section 6.5.1: fields behind a body must not say what it is, or who sends it. No registry reads any.
  if (headers.trailer !== undefined) throw ambiguous("trailers are announced");
}

const ambiguous = (what: string): RegistryError =>
  new RegistryError(400, "UNSUPPORTED", `this request can be read in two ways: ${what}`, {
    detail: "send each header once, name none of them in Connection, and send no trailers",
  });
