import { parseJson, property } from "../connector/document.ts";

/** What a token says of itself. Nothing of it is proved. */
export interface TokenClaims {
  readonly audiences: readonly string[];
  /** Milliseconds since the epoch; undefined for a token that does not say. */
  readonly expiresAt: number | undefined;
}

/** RFC 7515, section 3.1. */
const compactForm = /^[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+$/;

/** The claims of a JWT; undefined for anything else. */
export function readClaims(token: string): TokenClaims | undefined {
  const payload = compactForm.exec(token)?.[1];
  const claims =
    payload === undefined
      ? undefined
      : parseJson(Buffer.from(payload, "base64url").toString("utf8"));
  if (claims === undefined) return undefined;
  const audience = property(claims, "aud");
  const audiences = Array.isArray(audience) ? audience : [audience];
  const expiry = property(claims, "exp");
  return {
    audiences: audiences.filter((one) => typeof one === "string"),
    expiresAt: typeof expiry === "number" ? expiry * 1000 : undefined,
  };
}
