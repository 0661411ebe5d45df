import { createPrivateKey, X509Certificate } from "node:crypto";
import { property } from "./document.ts";
import type { Checked, Problem } from "./problem.ts";

/** The name of the Secret, in the install namespace, with the keys that all proxies share. */
export const keysSecretName = "connectors-proxy-keys";
/** The name of the ConfigMap, in the install namespace, with the certificates that clients of the proxy trust. */
export const caConfigMapName = "connectors-proxy-ca";
/** The key of those certificates in the ConfigMap. */
export const caConfigMapKey = "ca.crt";

/** A certificate authority: its certificate and its private key, PEM. */
export interface AuthorityPair {
  readonly certificate: string;
  readonly privateKey: string;
}

/** The keys with which the proxies sign certificates and seal upload sessions. */
export interface ProxyKeys {
  /** Signs the proxy's certificates. */
  readonly authority: AuthorityPair;
  /** Seals upload sessions: 32 bytes. */
  readonly sealKey: Buffer;
  /** The keys that the next rotation brings into use. All proxies know them already, and none uses them. */
  readonly next: Pick<ProxyKeys, "authority" | "sealKey"> | undefined;
  /** The keys of before the last rotation, which are still trusted. */
  readonly previous: { readonly certificate: string; readonly sealKey: Buffer } | undefined;
}

/** The certificates to trust as one PEM text, with that of the current authority first. */
export const trustedBundle = ({ authority, next, previous }: ProxyKeys): string =>
  [authority.certificate, next?.authority.certificate, previous?.certificate]
    .filter((certificate) => certificate !== undefined)
    .map((certificate) => `${certificate.trim()}\n`)
    .join("");

/** The keys that open an upload session, with the one that seals new sessions first. */
export const openingKeys = ({ sealKey, next, previous }: ProxyKeys): readonly Buffer[] =>
  [sealKey, next?.sealKey, previous?.sealKey].filter((key) => key !== undefined);

const sealKeyBytes = 32;

/** The keys as the `data` of their Secret, in base64. A key that there is not is undefined. */
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

/** Parses the Secret with the keys. Problems say what is wrong with a value and never show it. */
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

/** Whether a test returns true and does not throw. Errors of parsers are dropped, since they may quote a key. */
function works(test: () => boolean): boolean {
  try {
    return test();
  } catch {
    return false;
  }
}
