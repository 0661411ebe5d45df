import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { property } from "../../connector/document.ts";

/**
 * What an upload URL of ours stands for. A registry's own upload URLs may lack the repository
 * (Google's), name another host, or carry state that lets whoever holds it go on; so clients never see them.
 */
export interface UploadSession {
  /** The registry's upload URL, absolute. */
  readonly url: string;
  readonly connectorUid: string;
  /** As the client calls it. */
  readonly repository: string;
  /** Whose upload it is, see `Identity.subject`. */
  readonly subject: string;
}

/** An upload may rest for so long between two requests. Each response seals its URL anew, with the whole time before it. */
const lifetimeSeconds = 24 * 60 * 60;

export interface SessionSeal {
  /** @returns one path segment of base64url, which can be opened for a day */
  seal(session: UploadSession): string;
  /** @returns undefined for anything that none of these keys has sealed, or that has expired */
  open(sealed: string): UploadSession | undefined;
}

/** What is in a sealed URL. */
interface SealedSession extends UploadSession {
  /** Seconds since 1970. */
  readonly expires: number;
}

const ivLength = 12;
const tagLength = 16;
const purpose = Buffer.from("oci-connector upload session 1");

/**
 * Seals with AES-256-GCM (NIST SP 800-38D) under a random nonce. Every replica with the same key
 * opens what another has sealed, so an upload goes on where its next request happens to arrive.
 * @param keys of 32 bytes each; the first one seals, and all of them open, so that a rotation cuts nothing
 * @param now milliseconds since 1970
 */
export function createSessionSeal(
  keys: () => readonly [Buffer, ...Buffer[]],
  now: () => number,
): SessionSeal {
  return {
    seal({ url, connectorUid, repository, subject }) {
      const expires = Math.floor(now() / 1000) + lifetimeSeconds;
      const iv = randomBytes(ivLength);
      const cipher = createCipheriv("aes-256-gcm", keys()[0], iv).setAAD(purpose);
      const text = JSON.stringify([url, connectorUid, repository, subject, expires]);
      const sealed = Buffer.concat([iv, cipher.update(text, "utf8"), cipher.final()]);
      return Buffer.concat([sealed, cipher.getAuthTag()]).toString("base64url");
    },
    open(sealed) {
      const bytes = Buffer.from(sealed, "base64url");
      if (bytes.toString("base64url") !== sealed) return undefined; // one spelling, and no other
      for (const key of keys()) {
        const sealedSession = decrypt(key, bytes);
        if (sealedSession !== undefined) {
          const { expires, ...session } = sealedSession;
          return expires * 1000 > now() ? session : undefined;
        }
      }
      return undefined;
    },
  };
}

function decrypt(key: Buffer, sealed: Buffer): SealedSession | undefined {
  if (sealed.length <= ivLength + tagLength) return undefined;
  const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(0, ivLength), {
    authTagLength: tagLength,
  });
  decipher.setAAD(purpose).setAuthTag(sealed.subarray(-tagLength));
  try {
    const text = decipher.update(sealed.subarray(ivLength, -tagLength)) + decipher.final("utf8");
    return fromArray(JSON.parse(text));
  } catch {
    return undefined;
  }
}

function fromArray(value: unknown): SealedSession {
  const at = (index: number): string => String(property(value, String(index)));
  return {
    url: at(0),
    connectorUid: at(1),
    repository: at(2),
    subject: at(3),
    expires: Number(at(4)),
  };
}
