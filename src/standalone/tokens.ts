import { createPublicKey, hash, type KeyObject } from "node:crypto";
import { errors, type JWTPayload, jwtVerify, SignJWT } from "jose";
import { LRUCache } from "lru-cache";
import type { Identity, Result, VerifyToken } from "../connector/platform.ts";

/** The mounted volume that a token is signed for, and the connectors that the token opens. */
export interface TokenHolder {
  readonly volumeId: string;
  /** A random id of the mount, different each time the volume is mounted. */
  readonly mount: string;
  /** The connectors as `namespace/name`. */
  readonly connectors: readonly string[];
}

/** What signing and verifying have in common. */
export interface TokenOptions {
  /** The private Ed25519 key. */
  readonly key: KeyObject;
  /** The audience of the tokens. */
  readonly audience: string;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** A token, and when it expires. */
export interface SignedToken {
  readonly token: string;
  readonly expiresAt: Date;
}

/** Signs a token with a lifetime in seconds. */
export type SignToken = (holder: TokenHolder, lifetimeSeconds: number) => Promise<SignedToken>;

const issuer = "oci-connector";
const algorithm = "EdDSA";
/** How far this machine's clock may have been set back since a token was signed. */
const clockToleranceSeconds = 5;

/** Creates a signer of JWTs (RFC 7519) for volumes. */
export function createTokenSigner({
  key,
  audience,
  now,
  newTokenId,
}: TokenOptions & { readonly newTokenId: () => string }): SignToken {
  return async ({ volumeId, mount, connectors }, lifetimeSeconds) => {
    const issuedAt = Math.floor(now() / 1000);
    const token = await new SignJWT({ mount, connectors })
      .setProtectedHeader({ alg: algorithm })
      .setIssuer(issuer)
      .setAudience(audience)
      .setSubject(volumeId)
      .setIssuedAt(issuedAt)
      .setExpirationTime(issuedAt + lifetimeSeconds)
      .setJti(newTokenId())
      .sign(key);
    return { token, expiresAt: new Date((issuedAt + lifetimeSeconds) * 1000) };
  };
}

/**
 * Creates a verifier of the tokens that `createTokenSigner` signs. A token is valid no longer than the mount that it was
 * signed for, so an unmount revokes all of its tokens. A refusal shows no part of the token.
 */
export function createTokenVerifier({
  key,
  audience,
  now,
  admits,
}: TokenOptions & {
  /** Whether tokens of a mount are good. */
  readonly admits: (volumeId: string, mount: string) => boolean;
}): VerifyToken {
  const publicKey = createPublicKey(key);
  const verified = new LRUCache<string, VerifiedToken>({ max: maxVerifiedTokens });
  const verify = async (token: string): Promise<VerifiedToken | undefined> => {
    if (!endsCanonically(token)) return undefined;
    const { payload } = await jwtVerify(token, publicKey, {
      algorithms: [algorithm],
      issuer,
      audience,
      clockTolerance: clockToleranceSeconds,
      currentDate: new Date(now()),
      requiredClaims: ["exp", "iat", "jti", "sub"],
    });
    const holder = holderOf(payload);
    return holder && { holder, validUntil: ((payload.exp ?? 0) + clockToleranceSeconds) * 1000 };
  };
  const verifyAnew = async (token: string, digest: string): Promise<TokenHolder | undefined> => {
    const found = await verify(token);
    if (found !== undefined) verified.set(digest, found);
    return found?.holder;
  };
  const knownHolder = (digest: string): TokenHolder | undefined => {
    const known = verified.get(digest);
    return known !== undefined && known.validUntil > now() ? known.holder : undefined;
  };
  return async (token) => {
    const digest = hash("sha256", token, "base64");
    try {
      const holder = knownHolder(digest) ?? (await verifyAnew(token, digest));
      if (holder === undefined) return refuse(notOurs);
      if (!admits(holder.volumeId, holder.mount)) return refuse(unmounted);
      return { ok: true, value: identityOf(holder) };
    } catch (error) {
      if (error instanceof errors.JOSEError) return refuse(reasons[error.code] ?? notOurs);
      throw error;
    }
  };
}

interface VerifiedToken {
  readonly holder: TokenHolder;
  /** Milliseconds since 1970. */
  readonly validUntil: number;
}

/** How many verified tokens are kept. A build sends one token thousands of times, and a signature costs a tenth of a millisecond. */
const maxVerifiedTokens = 1_000;

const readItAgain = "read it from the mounted volume (context.token, config.json)";
const notOurs = `this is not a token of this connector proxy: ${readItAgain}`;
const unmounted =
  "the volume of this token is not mounted any more: mount it, and read the token from there";
const reasons: Readonly<Record<string, string>> = {
  [errors.JWTExpired.code]:
    `this token has expired: ${readItAgain} again, since it is renewed there in time`,
  [errors.JWTClaimValidationFailed.code]:
    `this token was issued for something else: ${readItAgain}`,
  [errors.JWSSignatureVerificationFailed.code]:
    `this token was signed with another key: ${readItAgain}`,
};

const refuse = (reason: string): Result<never> => ({ ok: false, reason });

/** Whether the signature has its canonical spelling: in base64url, its last character has bits that mean nothing. */
function endsCanonically(token: string): boolean {
  const signature = token.slice(token.lastIndexOf(".") + 1);
  return Buffer.from(signature, "base64url").toString("base64url") === signature;
}

function holderOf({ sub, mount, connectors }: JWTPayload): TokenHolder | undefined {
  const isText = (value: unknown): value is string => typeof value === "string";
  if (!isText(sub) || !isText(mount)) return undefined;
  if (!Array.isArray(connectors) || !connectors.every(isText)) return undefined;
  return { volumeId: sub, mount, connectors };
}

const identityOf = ({ volumeId, mount, connectors }: TokenHolder): Identity => ({
  user: `volume:${volumeId}`,
  groups: [],
  subject: mount,
  connectors,
});
