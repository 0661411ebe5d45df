import { createPublicKey, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import {
  createLocalJWKSet,
  createRemoteJWKSet,
  type JSONWebKeySet,
  type JWTPayload,
  jwtVerify,
} from "jose";
import type { Stoppable } from "../cleanup.ts";

/** Issues tokens as an API server does, and serves the keys that they are verified by. */
export interface Issuer extends Stoppable {
  /** The `iss` of its tokens, and where its keys are. */
  readonly url: string;
  /** Signs a token, whatever its claims are; those that are not given are made up. */
  issue(claims: IssuedClaims): string;
  /** Every token that it has signed. */
  readonly issued: readonly string[];
  /** Its clock, in milliseconds since 1970. */
  now: () => number;
}

export interface IssuedClaims extends JWTPayload {
  readonly lifetimeSeconds?: number;
}

const base64url = (value: object): string =>
  Buffer.from(JSON.stringify(value)).toString("base64url");

/** Starts an issuer on a free port. */
export async function startIssuer(): Promise<Issuer> {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const kid = randomUUID();
  const jwk = { ...createPublicKey(privateKey).export({ format: "jwk" }), kid, alg: "ES256" };
  const server = createServer((request, response) => {
    const found: Record<string, object> = {
      "/.well-known/openid-configuration": { issuer: url, jwks_uri: `${url}/openid/v1/jwks` },
      "/openid/v1/jwks": { keys: [jwk] },
    };
    const body = found[request.url ?? ""];
    response.writeHead(body === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(body ?? {}));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const issued: string[] = [];
  const issuer: Issuer = {
    url,
    issued,
    now: Date.now,
    issue({ lifetimeSeconds = 600, ...claims }) {
      const iat = Math.floor(issuer.now() / 1000);
      const payload = {
        iss: url,
        iat,
        nbf: iat,
        exp: iat + lifetimeSeconds,
        jti: randomUUID(),
        ...claims,
      };
      const text = `${base64url({ alg: "ES256", kid, typ: "JWT" })}.${base64url(payload)}`;
      const signature = sign("sha256", Buffer.from(text), {
        key: privateKey,
        dsaEncoding: "ieee-p1363",
      });
      const token = `${text}.${signature.toString("base64url")}`;
      issued.push(token);
      return token;
    },
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return issuer;
}

/** What a relying party demands of a token. */
export interface Trust {
  readonly issuer: string;
  readonly audience: string;
  readonly subject: string;
  /** Its keys, where they are not published below the issuer's URL. */
  readonly keys?: JSONWebKeySet;
}

/**
 * Verifies a token as a relying party does: its signature by the issuer's published keys, issuer, audience, subject, and
 * its times. @throws where it is not as trusted
 */
export async function verifyByJwks(
  token: string,
  trust: Trust,
  now: number = Date.now(),
): Promise<JWTPayload> {
  const { issuer, audience, subject, keys } = trust;
  const findKey =
    keys === undefined
      ? createRemoteJWKSet(new URL(`${issuer}/openid/v1/jwks`))
      : createLocalJWKSet(keys);
  const { payload } = await jwtVerify(token, findKey, {
    issuer,
    audience,
    subject,
    currentDate: new Date(now),
    requiredClaims: ["exp", "iat"],
  });
  const audiences = [payload.aud ?? []].flat();
  if (audiences.length !== 1) throw new Error(`the token has ${audiences.length} audiences`);
  return payload;
}
