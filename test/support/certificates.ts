import "reflect-metadata"; // @peculiar/x509 asks for it before anything else
import type { webcrypto } from "node:crypto";
import { isIP } from "node:net";
import {
  BasicConstraintsExtension,
  cryptoProvider,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";
import type { KeyPair } from "../../src/certificate-authority.ts";

const { subtle } = cryptoProvider.get();

const ecdsa = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const rsa = {
  name: "RSASSA-PKCS1-v1_5",
  hash: "SHA-256",
  publicExponent: new Uint8Array([1, 0, 1]),
} as const;

const dayMs = 24 * 60 * 60 * 1000;

export interface CertificateOptions {
  /** A DNS name or an IP address where it is for a server; the common name in any case. */
  readonly name: string;
  /** Whether it may sign further certificates. */
  readonly isAuthority?: boolean;
  /** Who signs it; itself, where nobody is named. */
  readonly issuer?: KeyPair;
  /** Bits of an RSA key; an ECDSA key, where nothing is said. */
  readonly rsaBits?: number;
  readonly expiredAt?: Date;
  /** What it may be used for: `serverAuth` and `clientAuth`, by their OIDs. */
  readonly usages?: readonly string[];
}

/** Makes a certificate as a test wants it: an authority, an issuing one, a server's or a client's, expired, or with a weak key. */
export async function makeCertificate(options: CertificateOptions): Promise<KeyPair> {
  const { name, isAuthority = false, issuer, rsaBits, expiredAt, usages = [] } = options;
  const algorithm = rsaBits === undefined ? ecdsa : { ...rsa, modulusLength: rsaBits };
  const keys = await subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const usage = isAuthority
    ? KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign
    : KeyUsageFlags.digitalSignature;
  const extensions: Extension[] = [
    new BasicConstraintsExtension(isAuthority, undefined, true),
    new KeyUsagesExtension(usage, true),
  ];
  if (!isAuthority) {
    extensions.push(
      new SubjectAlternativeNameExtension([{ type: isIP(name) ? "ip" : "dns", value: name }]),
    );
  }
  if (usages.length > 0) extensions.push(new ExtendedKeyUsageExtension([...usages]));
  const notAfter = expiredAt ?? new Date(Date.now() + dayMs);
  const certificate = await X509CertificateGenerator.create({
    subject: `CN=${name}`,
    issuer: issuer === undefined ? `CN=${name}` : new X509Certificate(issuer.certificate).subject,
    notBefore: new Date(notAfter.getTime() - 2 * dayMs),
    notAfter,
    signingAlgorithm: issuer === undefined ? algorithm : ecdsa,
    publicKey: keys.publicKey,
    signingKey: issuer === undefined ? keys.privateKey : await importKey(issuer.privateKey),
    extensions,
  });
  const key = await subtle.exportKey("pkcs8", keys.privateKey);
  return {
    certificate: `${certificate.toString("pem")}\n`,
    privateKey: `${PemConverter.encode(key, "PRIVATE KEY")}\n`,
  };
}

/** Issuers have ECDSA keys. */
async function importKey(text: string): Promise<webcrypto.CryptoKey> {
  const [der] = PemConverter.decode(text);
  if (der === undefined) throw new Error("the issuer's private key is not in PEM");
  return subtle.importKey("pkcs8", der, ecdsa, false, ["sign"]);
}
