import "reflect-metadata"; // @peculiar/x509 asks for it before anything else
import type { webcrypto } from "node:crypto";
import { isIP } from "node:net";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  cryptoProvider,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";

const { subtle } = cryptoProvider.get();

/** A certificate with its private key, both PEM (the key PKCS #8). */
export interface KeyPair {
  readonly certificate: string;
  readonly privateKey: string;
}

/** ECDSA P-256: every client knows it, and a handshake costs a tenth of RSA's. */
const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

const dayMs = 24 * 60 * 60 * 1000;
const authorityLifetimeMs = 3650 * dayMs;
/** How long a leaf is valid. Whoever serves it asks for a new one well before. */
export const leafLifetimeMs: number = 30 * dayMs;
/** Certificates are valid from so long before, since clocks of clients may be behind ours. */
const clockSkewMs = dayMs / 24;

/**
 * Makes a certificate authority that signs leaves only, not further authorities. It is valid for ten years.
 * @param issuedAt the time at which it is made
 */
export async function createAuthority(commonName: string, issuedAt: Date): Promise<KeyPair> {
  const keys = await subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: `CN=${commonName}`,
    notBefore: new Date(issuedAt.getTime() - clockSkewMs),
    notAfter: new Date(issuedAt.getTime() + authorityLifetimeMs),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: pem(certificate), privateKey: await exportKey(keys.privateKey) };
}

/**
 * Makes a key, and signs a server certificate of {@link leafLifetimeMs} for it.
 * @param name one DNS name or IP address (without brackets)
 * @param issuedAt the time at which it is made
 * @param furtherNames names and addresses that it is for as well
 */
export type IssueLeaf = (
  name: string,
  issuedAt: Date,
  furtherNames?: readonly string[],
) => Promise<KeyPair>;

/**
 * Makes a function that signs leaves by an authority.
 * @throws Error where the authority's certificate or key is not PEM
 * @example
 * const issueLeaf = await createLeafIssuer(authority);
 * const { certificate, privateKey } = await issueLeaf("harbor.test", new Date());
 */
export async function createLeafIssuer(authority: KeyPair): Promise<IssueLeaf> {
  const issuer = new X509Certificate(authority.certificate);
  const signingKey = await importKey(authority.privateKey);
  return async (name, issuedAt, furtherNames = []) => {
    const keys = await subtle.generateKey(algorithm, true, ["sign", "verify"]);
    const certificate = await X509CertificateGenerator.create({
      subject: `CN=${name.slice(0, 64)}`, // RFC 5280, ub-common-name; names are checked by the SAN
      issuer: issuer.subject,
      notBefore: new Date(issuedAt.getTime() - clockSkewMs),
      notAfter: new Date(issuedAt.getTime() + leafLifetimeMs),
      signingAlgorithm: algorithm,
      publicKey: keys.publicKey,
      signingKey,
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
        new SubjectAlternativeNameExtension(
          [name, ...furtherNames].map((value) => ({ type: isIP(value) ? "ip" : "dns", value })),
        ),
        await AuthorityKeyIdentifierExtension.create(issuer),
      ],
    });
    return { certificate: pem(certificate), privateKey: await exportKey(keys.privateKey) };
  };
}

const pem = (certificate: X509Certificate): string => `${certificate.toString("pem")}\n`;

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  return `${PemConverter.encode(await subtle.exportKey("pkcs8", key), "PRIVATE KEY")}\n`;
}

async function importKey(text: string): Promise<webcrypto.CryptoKey> {
  const [der] = PemConverter.decode(text);
  if (der === undefined) throw new Error("the authority's private key is not in PEM");
  return subtle.importKey("pkcs8", der, algorithm, false, ["sign"]);
}
