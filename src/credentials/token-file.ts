import { open, realpath } from "node:fs/promises";
import { join, sep } from "node:path";
import type { JWTPayload } from "jose";
import { claimsOf } from "../connector/jwt-claims.ts";
import { show } from "../connector/problem.ts";
import { errorCode } from "../error-code.ts";
import { LoginError, type RequestToken } from "./login.ts";

export interface TokenFileOptions {
  /** The folder that the operator names; undefined where there is none. */
  readonly folder: string | undefined;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** No registry and no token server takes a longer token. */
const maxTokenBytes = 32 * 1024;
const form = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*$/;

/**
 * Makes what reads the token of an identity out of a file: a JWT that something else renews, such as a SPIFFE JWT-SVID
 * (spiffe-helper) or the ID token of a CI job. It is read anew each time, and has to be for just the audience that is
 * wanted. A file whose name is a link may lie elsewhere in the folder, as in a volume of Kubernetes, and nowhere else.
 */
export const createTokenFileReader =
  ({ folder, now }: TokenFileOptions) =>
  (name: string): RequestToken =>
  async (audience) => {
    if (folder === undefined) {
      const message = `the token file ${name} can't be read: start the process with --token-files and the folder that it is in`;
      throw new LoginError("TokenInvalid", message);
    }
    const path = join(folder, name);
    const token = (await readToken(folder, path)).trim();
    const { aud, exp } = readClaims(path, token);
    checkAudience(path, aud, audience);
    const expiresAt = exp === undefined ? undefined : exp * 1000;
    if (expiresAt !== undefined && expiresAt <= now()) {
      const since = new Date(expiresAt).toISOString();
      throw wrong(
        path,
        `a token that has expired at ${since}`,
        "one that whatever writes it has renewed",
      );
    }
    return { value: token, expiresAt };
  };

function readClaims(path: string, token: string): JWTPayload {
  const claims = form.test(token) ? claimsOf(token) : undefined;
  if (claims !== undefined) return claims;
  throw wrong(path, "something that is no JWT", "one JWT, and nothing else");
}

function checkAudience(path: string, aud: JWTPayload["aud"], audience: string): void {
  const audiences = [aud ?? []].flat();
  if (audiences.length === 1 && audiences[0] === audience) return;
  const found = audiences.map(show).join(", ") || "none";
  const message =
    `${path}: found a token for the audience ${found}, wanted one for ${show(audience)} alone: ` +
    "have it issued for that, or name its audience by the parameter audience";
  throw new LoginError("AudienceRefused", message);
}

async function readToken(folder: string, path: string): Promise<string> {
  try {
    const [root, target] = await Promise.all([realpath(folder), realpath(path)]);
    if (!target.startsWith(`${root}${sep}`)) {
      throw wrong(path, "a link that leads out of the folder", "a file in it");
    }
    const file = await open(target, "r");
    try {
      const status = await file.stat();
      if (!status.isFile()) throw wrong(path, "no regular file", "a file with a JWT");
      if (status.size > maxTokenBytes) {
        throw wrong(path, `${status.size} bytes`, `at most ${maxTokenBytes}`);
      }
      return await file.readFile("utf8");
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof LoginError) throw error;
    const found = errorCode(error) === "ENOENT" ? "nothing" : String(errorCode(error));
    throw wrong(path, found, "a file with a JWT that this process may read");
  }
}

const wrong = (path: string, found: string, wanted: string): LoginError =>
  new LoginError("TokenInvalid", `${path}: found ${found}, wanted ${wanted}`);
