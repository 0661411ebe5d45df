import { property } from "./document.ts";
import type { Checked, Problem } from "./problem.ts";

/** What a registry wants to hear. Never logged, never part of an error. */
export interface Credential {
  readonly username: string;
  readonly password: string;
}

export const credentialSecretTypes: readonly string[] = [
  "cpaas.io/distribution-registry-token",
  "kubernetes.io/basic-auth",
];

/**
 * The credential in a Secret document, from `data` (base64) or `stringData`. Problems tell what is
 * wrong with a value and never show it.
 */
export function parseCredential(secret: unknown): Checked<Credential> {
  const problems: Problem[] = [];
  const type = property(secret, "type");
  if (typeof type !== "string" || !credentialSecretTypes.includes(type)) {
    const found = typeof type === "string" ? `"${type.replace(/[^\w./-]/g, "?")}"` : "nothing";
    problems.push({ path: "type", found, wanted: credentialSecretTypes.join(" or ") });
  }
  const username = textOf(secret, "username", problems);
  const password = textOf(secret, "password", problems);
  // RFC 7617, section 2: the first colon ends the user, so a user can't contain one.
  if (username?.includes(":")) {
    problems.push({ path: "username", found: 'a ":"', wanted: 'a user name without ":"' });
  }
  if (problems.length > 0 || username === undefined || password === undefined) {
    return { ok: false, problems };
  }
  return { ok: true, value: { username, password } };
}

function textOf(secret: unknown, key: string, problems: Problem[]): string | undefined {
  const text = secretValue(secret, key)?.toString("utf8");
  const wrong = whatIsWrongWith(text);
  if (wrong === undefined) return text;
  problems.push({ path: key, found: wrong, wanted: "one line of text" });
  return undefined;
}

function whatIsWrongWith(text: string | undefined): string | undefined {
  if (text === undefined) return "nothing";
  if (text === "") return "an empty value";
  if (/[\r\n]$/.test(text)) return "a value that ends in a newline (written with echo? use printf)";
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (/[\u0000-\u001f\u007f]/.test(text)) return "a control character";
  return undefined;
}

const pemCertificate = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;

/** Every PEM certificate in a Secret document whose key ends in `.crt` or `.pem`, or whose value is PEM. */
export function parseCertificates(secret: unknown): readonly string[] {
  const keys = new Set(
    ["data", "stringData"].flatMap((part) => Object.keys(property(secret, part) ?? {})),
  );
  // A key that ends in .crt but holds no PEM has nothing to give, so looking at values finds them all.
  return [...keys].flatMap(
    (key) => secretValue(secret, key)?.toString().match(pemCertificate) ?? [],
  );
}

/** `stringData` wins over `data`, as on the API server. */
function secretValue(secret: unknown, key: string): Buffer | undefined {
  const plain = property(property(secret, "stringData"), key);
  if (typeof plain === "string") return Buffer.from(plain);
  const encoded = property(property(secret, "data"), key);
  return typeof encoded === "string" ? Buffer.from(encoded, "base64") : undefined;
}
