import { property } from "../../connector/document.ts";
import { attempt } from "../../error-code.ts";

/** What may be base64 of a token, with or without a user before it, in either alphabet (RFC 4648). */
const base64Run = /[A-Za-z0-9+/_-]{16,}/g;
/** What is between the parts of JWTs (RFC 7519), and around them. */
const betweenParts = /[^A-Za-z0-9_-]+/;

/**
 * Whether a text that is to leave this proxy shows the token that its client uses this proxy with, or another one of its
 * kind: a JWT by the same issuer for the same audience, such as the volume's next token, or a neighbour's. Such a token is for
 * this proxy alone. It is found as it stands, percent-encoded, and in base64, as Basic authentication has it.
 * @param text a header's value, or a path with its query
 * @param token the token that the client has shown
 */
export function showsVolumeToken(text: string, token: string): boolean {
  const kind = kindOf(token.split(".")[1] ?? "");
  const shows = (form: string): boolean =>
    form.includes(token) ||
    (kind !== undefined && form.split(betweenParts).some((part) => kindOf(part) === kind));
  const plain = percentDecoded(text);
  if (shows(text) || (plain !== text && shows(plain))) return true;
  return (plain.match(base64Run) ?? []).some((run) =>
    shows(Buffer.from(run, "base64").toString("latin1")),
  );
}

/** Text that can't be decoded stands for itself. */
const percentDecoded = (text: string): string =>
  text.includes("%")
    ? attempt(
        () => decodeURIComponent(text),
        () => text,
      )
    : text;

/**
 * The issuer and the audience that a part of a JWT names, as one text; undefined for what is not the claims of a token
 * that says both. JSON's objects begin with `eyJ` in base64url.
 */
function kindOf(part: string): string | undefined {
  if (!part.startsWith("eyJ")) return undefined;
  const claims: unknown = attempt(
    () => JSON.parse(Buffer.from(part, "base64url").toString("utf8")),
    () => undefined,
  );
  const issuer = property(claims, "iss");
  const audience = property(claims, "aud");
  if (typeof issuer !== "string" || audience === undefined) return undefined;
  return JSON.stringify([issuer, [audience].flat()]);
}
