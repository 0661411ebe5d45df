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

/** The token in an Authorization header: behind `Bearer`, or as the password behind `Basic`, whatever its user. */
export function clientToken(authorization: string | undefined): string | undefined {
  const match = /^(basic|bearer) +([A-Za-z0-9._~+/-]+=*) *$/i.exec(authorization ?? "");
  if (match === null) return undefined;
  const [, scheme = "", value = ""] = match;
  if (scheme.toLowerCase() === "bearer") return value;
  const pair = Buffer.from(value, "base64").toString("utf8");
  const colon = pair.indexOf(":"); // RFC 7617, section 2: the first colon ends the user
  const token = colon < 0 ? "" : pair.slice(colon + 1);
  return token === "" ? undefined : token;
}

/** One challenge, and Basic: every client can answer it, and none goes to a token server of its own (RFC 9110, section 11.6.1). */
export const basicChallenge = 'Basic realm="connectors-proxy"';
