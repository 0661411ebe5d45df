import { decodeJwt, type JWTPayload } from "jose";

/**
 * The claims of a JWT, which nobody has verified.
 * @returns undefined for any other text; the error of `decodeJwt` is dropped, since it may quote the text
 */
export function claimsOf(token: string): JWTPayload | undefined {
  try {
    return decodeJwt(token);
  } catch {
    return undefined;
  }
}
