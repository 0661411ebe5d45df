import { createPrivateKey, X509Certificate } from "node:crypto";
import { property } from "./document.ts";
import type { Checked, Problem } from "./problem.ts";

/** The Secret, in the install namespace, with the keys that all proxies share. */
export const keysSecretName = "connectors-proxy-keys";
/** The ConfigMap beside it with the certificates that clients of the proxy trust, under `ca.crt`. */
export const caConfigMapName = "connectors-proxy-ca";
export const caConfigMapKey = "ca.crt";

/** An authority: its certificate and its private key, PEM. */
export interface AuthorityPair {
  readonly certificate: string;
  readonly privateKey: string;
}

/** What the proxies sign and seal with. */
export interface ProxyKeys {
  /** Signs the proxy's certificates. */
  readonly authority: AuthorityPair;
  /** Seals upload sessions: 32 bytes. */
  readonly sealKey: Buffer;
  /** What takes over in a rotation: known to all, and used by nobody yet. */
  readonly next: Pick<ProxyKeys, "authority" | "sealKey"> | undefined;
  /** What was used before a rotation, and is still trusted. */
  readonly previous: { readonly certificate: string; readonly sealKey: Buffer } | undefined;
}

/** The certificates to trust, that of today's authority first, as one PEM text. */
export const trustedBundle = ({ authority, next, previous }: ProxyKeys): string =>
  [authority.certificate, next?.authority.certificate, previous?.certificate]
    .filter((certificate) => certificate !== undefined)
    .map((certificate) => `${certificate.trim()}\n`)
    .join("");

/** The keys that open an upload session, that which seals new ones first. */
export const openingKeys = ({ sealKey, next, previous }: ProxyKeys): readonly Buffer[] =>
  [sealKey, next?.sealKey, previous?.sealKey].filter((key) => key !== undefined);

const sealKeyBytes = 32;

/** As the `data` of the Secret: base64. What is undefined is not there. */
export function proxyKeysData(keys: ProxyKeys): Readonly<Record<DataKey, string | undefined>> {
  const { authority, sealKey, next, previous } = keys;
  const base64 = (value: string | Buffer | undefined): string | undefined =>
    value === undefined ? undefined : Buffer.from(value).toString("base64");
  return {
    "ca.crt": base64(authority.certificate),
    "ca.key": base64(authority.privateKey),
    "seal.key": base64(sealKey),
    "next-ca.crt": base64(next?.authority.certificate),
    "next-ca.key": base64(next?.authority.privateKey),
    "next-seal.key": base64(next?.sealKey),
    "previous-ca.crt": base64(previous?.certificate),
    "previous-seal.key": base64(previous?.sealKey),
  };
}

type DataKey =
  | `${"" | "next-"}${"ca.crt" | "ca.key" | "seal.key"}`
  | `previous-${"ca.crt" | "seal.key"}`;

/** Reads the Secret. Problems tell what is wrong with a value and never show it. */
export function parseProxyKeys(secret: unknown): Checked<ProxyKeys> {
  const problems: Problem[] = [];
  const has = (key: DataKey): boolean => dataAt(secret, key) !== undefined;
  const certificate = (key: DataKey): string => textAt(secret, key, isCertificate, problems);
  const pair = (prefix: "" | "next-"): Pick<ProxyKeys, "authority" | "sealKey"> => {
    const authority = {
      certificate: certificate(`${prefix}ca.crt`),
      privateKey: textAt(secret, `${prefix}ca.key`, isPrivateKey, problems),
    };
    if (problems.length === 0 && !isPair(authority)) {
      const wanted = `the private key of ${prefix}ca.crt`;
      problems.push({ path: `${prefix}ca.key`, found: "the key of another certificate", wanted });
    }
    return { authority, sealKey: sealKeyAt(secret, `${prefix}seal.key`, problems) };
  };
  const keys = {
    ...pair(""),
    next: has("next-ca.crt") || has("next-ca.key") ? pair("next-") : undefined,
    previous: has("previous-ca.crt")
      ? {
          certificate: certificate("previous-ca.crt"),
          sealKey: sealKeyAt(secret, "previous-seal.key", problems),
        }
      : undefined,
  };
  return problems.length > 0 ? { ok: false, problems } : { ok: true, value: keys };
}

function dataAt(secret: unknown, key: DataKey): Buffer | undefined {
  const value = property(property(secret, "data"), key);
  return typeof value === "string" ? Buffer.from(value, "base64") : undefined;
}

function textAt(
  secret: unknown,
  key: DataKey,
  isRight: (text: string) => boolean,
  problems: Problem[],
): string {
  const text = dataAt(secret, key)?.toString("latin1");
  if (text !== undefined && isRight(text)) return text;
  const found = text === undefined ? "nothing" : "something else";
  const wanted = isRight === isCertificate ? "a certificate in PEM" : "a private key in PEM";
  problems.push({ path: key, found, wanted });
  return "";
}

function sealKeyAt(secret: unknown, key: DataKey, problems: Problem[]): Buffer {
  const bytes = dataAt(secret, key);
  if (bytes?.length === sealKeyBytes) return bytes;
  const found = bytes === undefined ? "nothing" : `${bytes.length} bytes`;
  problems.push({ path: key, found, wanted: `${sealKeyBytes} bytes` });
  return Buffer.alloc(0);
}

const isCertificate = (text: string): boolean =>
  works(() => new X509Certificate(text).raw.length > 0);

const isPrivateKey = (text: string): boolean => works(() => createPrivateKey(text) !== undefined);

const isPair = ({ certificate, privateKey }: AuthorityPair): boolean =>
  works(() => new X509Certificate(certificate).checkPrivateKey(createPrivateKey(privateKey)));

/** What the parsers say is left out: it may quote a key. */
function works(test: () => boolean): boolean {
  try {
    return test();
  } catch {
    return false;
  }
}
