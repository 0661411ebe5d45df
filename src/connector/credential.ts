import { isUtf8 } from "node:buffer";
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { createSecureContext } from "node:tls";
import { findDockerAuth } from "./docker-auths.ts";
import { property } from "./document.ts";
import { type Checked, type Problem, show } from "./problem.ts";
import type { RegistryAddress } from "./registry-address.ts";

/** The user and the password for a registry. They never reach a log or an error. */
export interface Credential {
  readonly username: string;
  readonly password: string;
  /**
   * What the password is, where it is none:
   * - identityToken: the registry's token server takes it as an OAuth 2.0 refresh token, and nobody takes it with Basic
   * - bearerToken: the registry itself takes it with every request (RFC 6750), and no token server is asked
   */
  readonly kind?: "identityToken" | "bearerToken";
}

/** The types of Secrets that hold a user and a password. */
const loginSecretTypes: readonly string[] = [
  "cpaas.io/distribution-registry-token",
  "kubernetes.io/basic-auth",
];
/** The type of Secrets that hold a docker configuration: those that Pods name in `imagePullSecrets`. */
const dockerConfigSecretType = "kubernetes.io/dockerconfigjson";
const dockerConfigKey = ".dockerconfigjson";

/** The types of Secrets that hold a credential. */
export const credentialSecretTypes: readonly string[] = [
  ...loginSecretTypes,
  dockerConfigSecretType,
];

/** The user that says, as in docker's credential helpers, that the password is an identity token. */
const identityTokenUser = "<token>";

/**
 * Parses the credential in a Secret document, from `data` (base64) or `stringData`. Problems say what is
 * wrong with a value and never show it.
 * @param address of the registry; of a docker configuration, the entry for it alone is read
 */
export function parseCredential(secret: unknown, address: RegistryAddress): Checked<Credential> {
  const type = property(secret, "type");
  if (type === dockerConfigSecretType) return parseDockerConfig(secret, address);
  const login = parseLogin(secret);
  if (typeof type === "string" && loginSecretTypes.includes(type)) return login;
  const problem = { path: "type", found: show(type), wanted: typesRule };
  return { ok: false, problems: login.ok ? [problem] : [problem, ...login.problems] };
}

/** Parses the user and the password in a Secret document of any type. */
export function parseLogin(secret: unknown): Checked<Credential> {
  const problems: Problem[] = [];
  const username = checkText(secretValue(secret, "username"), "username", problems);
  const password = checkText(secretValue(secret, "password"), "password", problems);
  return checkCredential(username, password, problems);
}

const typesRule = `${loginSecretTypes.join(", ")} or ${dockerConfigSecretType}`;

/** @param problems those of the two values */
function checkCredential(
  username: string | undefined,
  password: string | undefined,
  problems: Problem[],
): Checked<Credential> {
  // RFC 7617, section 2: the first colon ends the user, so a user can't contain one.
  if (username?.includes(":")) {
    problems.push({ path: "username", found: 'a ":"', wanted: 'a user name without ":"' });
  }
  if (problems.length > 0 || username === undefined || password === undefined) {
    return { ok: false, problems };
  }
  return { ok: true, value: createCredential(username, password) };
}

/** The credential of a user and a password, or of an identity token whose user is `<token>`. */
export const createCredential = (username: string, password: string): Credential =>
  username === identityTokenUser
    ? { username, password, kind: "identityToken" }
    : { username, password };

function parseDockerConfig(secret: unknown, address: RegistryAddress): Checked<Credential> {
  const path = dockerConfigKey;
  const config = secretValue(secret, dockerConfigKey);
  if (typeof config === "string") {
    const wanted = "the JSON of a docker configuration, with auths";
    return { ok: false, problems: [{ path, found: config, wanted }] };
  }
  const entry = findDockerAuth(config.toString("utf8"), address);
  if (!entry.ok) {
    return { ok: false, problems: [{ path, found: entry.found, wanted: entry.wanted }] };
  }
  const { username, password, identityToken } = entry.auth;
  const problems: Problem[] = [];
  const text = (value: unknown, name: string): string | undefined =>
    checkText(bytesOf(value), `${path}: ${name}`, problems);
  if (identityToken !== undefined) {
    return checkCredential(identityTokenUser, text(identityToken, "identitytoken"), problems);
  }
  return checkCredential(text(username, "username"), text(password, "password"), problems);
}

/** The bytes of a value in a docker configuration, or why there are none. */
function bytesOf(value: unknown): Buffer | string {
  if (Buffer.isBuffer(value)) return value;
  if (typeof value === "string") return Buffer.from(value);
  return value === undefined ? "nothing" : `a ${typeof value} instead of text`;
}

/** @param value bytes, or why there are none */
function checkText(value: Buffer | string, path: string, problems: Problem[]): string | undefined {
  const wrong = typeof value === "string" ? value : whatIsWrongWith(value);
  if (wrong === undefined) return value.toString("utf8");
  const wanted = `one line of text, of at most ${maxValueBytes} bytes`;
  problems.push({ path, found: wrong, wanted });
  return undefined;
}

/** Tokens that serve as a password have a few kilobytes, and no server takes a header of 64 KiB. */
const maxValueBytes = 32 * 1024;

function whatIsWrongWith(value: Buffer): string | undefined {
  if (value.length > maxValueBytes) return `${value.length} bytes`;
  if (value.length === 0) return "an empty value";
  if (!isUtf8(value)) return "bytes that are not UTF-8";
  const text = value.toString("utf8");
  if (/[\r\n]$/.test(text)) return "a value that ends in a newline (written with echo? use printf)";
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (/[\u0000-\u001f\u007f]/.test(text)) return "a control character";
  return undefined;
}

/** A certificate with which the proxy shows a registry who it is (mTLS), and its key. The key never reaches a log or an error. */
export interface ClientCertificate {
  /** PEM, with the certificates of issuing authorities behind it where there are any. */
  readonly certificate: string;
  /** PEM, without a passphrase. */
  readonly privateKey: string;
}

/** The type of Secrets that hold a client certificate, as cert-manager and `kubectl create secret tls` make them. */
export const clientCertificateSecretType = "kubernetes.io/tls";

/**
 * Parses the client certificate in a Secret document: `tls.crt` and `tls.key`. Problems say what is wrong with a value and
 * never show it.
 */
export function parseClientCertificate(secret: unknown): Checked<ClientCertificate> {
  const certificates = pemIn(secret, "tls.crt").match(pemCertificate) ?? [];
  const value = {
    certificate: certificates.join("\n"),
    privateKey: pemIn(secret, "tls.key"),
  };
  const type = property(secret, "type");
  const problems: Problem[] = [];
  if (type !== clientCertificateSecretType) {
    problems.push({ path: "type", found: show(type), wanted: clientCertificateSecretType });
  }
  const [leaf] = certificates;
  if (leaf === undefined || !certificates.every(isReadable)) {
    const found = leaf === undefined ? "no certificate" : "a certificate that can't be read";
    problems.push({ path: "tls.crt", found, wanted: "one or more certificates in PEM" });
  }
  const key = readPrivateKey(value.privateKey);
  if (key === undefined) {
    const found = value.privateKey === "" ? "no key" : "a key that can't be read";
    problems.push({ path: "tls.key", found, wanted: "a private key in PEM, without a passphrase" });
  }
  if (problems.length === 0 && leaf !== undefined && key !== undefined) {
    problems.push(...pairProblems(value, leaf, key));
  }
  return problems.length > 0 ? { ok: false, problems } : { ok: true, value };
}

function pairProblems(value: ClientCertificate, leaf: string, key: KeyObject): readonly Problem[] {
  if (!new X509Certificate(leaf).checkPrivateKey(key)) {
    const wanted = "the key of the first certificate in tls.crt";
    return [{ path: "tls.key", found: "another key", wanted }];
  }
  if (isUsable(value)) return [];
  const found = "a certificate or a key that TLS does not accept";
  return [{ path: "tls.crt", found, wanted: "RSA with 2,048 bits or more, or ECDSA" }];
}

/** Whether OpenSSL takes both: it refuses weak keys. */
function isUsable({ certificate, privateKey }: ClientCertificate): boolean {
  try {
    createSecureContext({ cert: certificate, key: privateKey });
    return true;
  } catch {
    return false;
  }
}

function pemIn(secret: unknown, key: string): string {
  const value = secretValue(secret, key);
  return typeof value === "string" ? "" : value.toString();
}

/** @returns undefined where it is no key, or wants a passphrase */
function readPrivateKey(text: string): KeyObject | undefined {
  try {
    return createPrivateKey(text);
  } catch {
    return undefined;
  }
}

const pemCertificate = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;

/**
 * Every PEM certificate in the values of a Secret document, whatever their keys. A certificate that can't be parsed is
 * left out, since TLS would ignore it without a word.
 */
export function parseCertificates(secret: unknown): readonly string[] {
  const keys = new Set(
    ["data", "stringData"].flatMap((part) => Object.keys(property(secret, part) ?? {})),
  );
  const values = [...keys].map((key) => secretValue(secret, key));
  return values.flatMap((value) => value.toString().match(pemCertificate) ?? []).filter(isReadable);
}

function isReadable(certificate: string): boolean {
  try {
    return new X509Certificate(certificate).raw.length > 0;
  } catch {
    return false;
  }
}

const notBase64 = "a value under data that is not base64 (plain text belongs under stringData)";

/** The bytes under a key, or why there are none. `stringData` takes precedence over `data`, as on the API server. */
function secretValue(secret: unknown, key: string): Buffer | string {
  const plain = property(property(secret, "stringData"), key) ?? undefined;
  if (typeof plain === "string") return Buffer.from(plain);
  if (plain !== undefined) return `a ${typeof plain} instead of text (put it in quotes)`;
  const encoded = property(property(secret, "data"), key) ?? undefined;
  if (encoded === undefined) return "nothing";
  if (typeof encoded !== "string") return notBase64;
  const bytes = Buffer.from(encoded, "base64");
  return bytes.toString("base64") === encoded.replace(/\s/g, "") ? bytes : notBase64;
}
