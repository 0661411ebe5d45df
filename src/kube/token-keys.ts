import { type CryptoKey, compactVerify, decodeProtectedHeader, importJWK, type JWK } from "jose";
import { listOf, property } from "../connector/document.ts";
import type { ApiClient } from "./api-client.ts";

/**
 * Says whether a token is signed with a key of the API server: false for a forged one, and undefined where that is not
 * known, since the keys can't be had. It never rejects. A token that is signed may still be revoked.
 */
export type IsSigned = (token: string) => Promise<boolean | undefined>;

export interface TokenKeysOptions {
  readonly client: Pick<ApiClient, "request">;
  /** The time, in milliseconds since 1970. */
  readonly now: () => number;
}

/** The keys that the API server publishes for tokens of ServiceAccounts. */
interface TokenKey {
  readonly id: string | undefined;
  readonly algorithm: string;
  readonly key: CryptoKey | Uint8Array;
}

const keysPath = "/openid/v1/jwks";
/** A token with a key that is not known has the keys read again, so often at most. */
const rereadMs = 5_000;
/** After a failure the keys are read again so often at most. */
const retryMs = 30_000;

/**
 * Creates a function that checks signatures with the keys that the API server publishes, which every ServiceAccount may
 * read by default (ClusterRole `system:service-account-issuer-discovery`). The issuer of a token is not compared, since
 * an API server publishes one of those that it accepts.
 */
export function createSignatureCheck({ client, now }: TokenKeysOptions): IsSigned {
  let keys: readonly TokenKey[] | undefined;
  let nextReadAt = 0;
  let reading: Promise<void> | undefined;

  async function read(): Promise<void> {
    try {
      // The API server refuses to send keys to whoever accepts nothing but application/json.
      const accept = "application/jwk-set+json, application/json";
      keys = await importKeys(await client.request({ path: keysPath, accept }));
      nextReadAt = now() + rereadMs;
    } catch {
      // Known keys stay in use: a key that was published is not taken back in a hurry, and a review follows anyway.
      nextReadAt = now() + retryMs;
    }
  }

  async function reread(): Promise<void> {
    if (reading === undefined && now() < nextReadAt) return;
    reading ??= read().finally(() => {
      reading = undefined;
    });
    await reading;
  }

  return async (token) => {
    const header = headerOf(token);
    if (header === undefined) return false;
    const find = (): readonly TokenKey[] | undefined => keys?.filter((key) => fits(key, header));
    let fitting = find();
    if (fitting === undefined || fitting.length === 0) {
      await reread();
      fitting = find();
    }
    if (fitting === undefined) return undefined;
    for (const { key, algorithm } of fitting) {
      if (await isSignedWith(token, key, algorithm)) return true;
    }
    return false;
  };
}

interface Header {
  readonly id: string | undefined;
  readonly algorithm: string | undefined;
}

function headerOf(token: string): Header | undefined {
  try {
    const { kid, alg } = decodeProtectedHeader(token);
    return { id: kid, algorithm: alg };
  } catch {
    return undefined;
  }
}

const fits = (key: TokenKey, { id, algorithm }: Header): boolean =>
  key.algorithm === algorithm && (id === undefined || key.id === undefined || key.id === id);

async function isSignedWith(
  token: string,
  key: TokenKey["key"],
  algorithm: string,
): Promise<boolean> {
  try {
    await compactVerify(token, key, { algorithms: [algorithm] });
    return true;
  } catch {
    return false;
  }
}

/** So many keys are tried for a token that names none; an API server has a few. */
const maxKeys = 16;

/** @throws Error where any of the keys can't be used: then nobody could tell whether a token is forged */
async function importKeys(keySet: unknown): Promise<readonly TokenKey[]> {
  const found = listOf(property(keySet, "keys"));
  if (found.length === 0 || found.length > maxKeys) {
    throw new Error(`found ${found.length} keys of the API server, wanted 1 to ${maxKeys}`);
  }
  return Promise.all(
    found.map(async (one) => {
      const { kid: id, alg: algorithm } = one as JWK;
      if (algorithm === undefined) throw new Error("a key of the API server has no algorithm");
      return { id, algorithm, key: await importJWK(one as JWK, algorithm) };
    }),
  );
}
