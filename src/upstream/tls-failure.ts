/** Why a TLS handshake with a registry failed, and what to do about it. */
export interface TlsFailure {
  /** Goes on from "the registry … can't be reached:". */
  readonly why: string;
  /** What to do about it; undefined where there is nothing but another attempt. */
  readonly detail: string | undefined;
}

const nameTheAuthority =
  "name the Secret with the registry's CA certificate, or that of its issuing authority alone, in the connector's " +
  "spec.caCertSecretRef";
const replaceCertificate = "give the registry another certificate";
const untrusted = {
  why: "its certificate is signed by an authority that is not trusted",
  detail: nameTheAuthority,
};
const weak = (what: string): TlsFailure => ({
  why: `${what} is too weak: wanted is RSA with 2,048 bits or more, or ECDSA, signed with SHA-256 or better`,
  detail: replaceCertificate,
});
const invalid = (why: string): TlsFailure => ({ why, detail: replaceCertificate });

/** By the code that Node gives to the result of OpenSSL's check of a certificate. */
const certificateFailures: Readonly<Record<string, TlsFailure>> = {
  CERT_CHAIN_TOO_LONG: invalid("its certificate has too many authorities above it"),
  CERT_HAS_EXPIRED: invalid("its certificate has expired, or that of an authority above it"),
  CERT_NOT_YET_VALID: {
    why: "its certificate is not valid yet",
    detail: "check the clock of the node, and from when on the certificate is valid",
  },
  CERT_REJECTED: invalid("its certificate may not be used for this"),
  CERT_REVOKED: invalid("its certificate is revoked"),
  CERT_SIGNATURE_FAILURE: invalid("the signature of its certificate is wrong"),
  CERT_UNTRUSTED: untrusted,
  DEPTH_ZERO_SELF_SIGNED_CERT: {
    why: "its certificate is self-signed",
    detail: nameTheAuthority,
  },
  ERR_TLS_CERT_ALTNAME_INVALID: {
    why: "its certificate is for another name",
    detail: "write a name of the certificate in the connector's spec.address",
  },
  INVALID_CA: invalid("its certificate is signed by one that may sign none"),
  INVALID_PURPOSE: invalid("its certificate is not for a server"),
  PATH_LENGTH_EXCEEDED: invalid("an authority above its certificate may not sign further ones"),
  SELF_SIGNED_CERT_IN_CHAIN: untrusted,
  UNABLE_TO_GET_ISSUER_CERT: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted,
};

/** By OpenSSL's own words: Node has the code UNSPECIFIED for these. */
const unspecifiedFailures: readonly (readonly [RegExp, TlsFailure])[] = [
  [/^EE certificate key too weak/i, weak("the key of its certificate")],
  [/^CA certificate key too weak/i, weak("the key of the authority above its certificate")],
  [/certificate signing/i, invalid("its certificate is signed by one that may sign none")],
  [/digest algorithm too weak/i, weak("the signature of its certificate")],
];

const nameClientCertificate =
  "name a Secret of type kubernetes.io/tls in the connector's spec.params clientCertSecret";
const http1Only = "serve HTTP/1.1 too: HTTP/2 alone is not supported";
const olderTls = "let it speak TLS 1.2 or 1.3: older versions are not supported";

/** By the end of the code of an error of OpenSSL; what stands before it differs from version to version. */
const handshakeFailures: readonly (readonly [RegExp, TlsFailure])[] = [
  [
    /ALERT_CERTIFICATE_REQUIRED$/,
    { why: "it wants a client certificate", detail: nameClientCertificate },
  ],
  [
    /ALERT_CERTIFICATE_EXPIRED$/,
    {
      why: "it says that the client certificate has expired",
      detail: "renew the certificate in the Secret of the connector's spec.params clientCertSecret",
    },
  ],
  [
    /ALERT_(UNKNOWN_CA|BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_(REVOKED|UNKNOWN)|ACCESS_DENIED)$/,
    {
      why: "it does not accept the client certificate",
      detail: "check the certificate in the Secret of the connector's spec.params clientCertSecret",
    },
  ],
  [/NO_APPLICATION_PROTOCOL$/, { why: "it does not speak HTTP/1.1", detail: http1Only }],
  [
    /(ALERT_PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL)$/,
    { why: "it speaks neither TLS 1.2 nor TLS 1.3", detail: olderTls },
  ],
  [
    /ALERT_(HANDSHAKE_FAILURE|INSUFFICIENT_SECURITY)$/,
    {
      why: "it ended the TLS handshake: it wants a client certificate, or has no cipher that is known here",
      detail: `${nameClientCertificate}, or let it use a cipher of TLS 1.2 with ECDHE, or TLS 1.3`,
    },
  ],
  [
    /(WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST)$/,
    {
      why: "what answers there is not TLS",
      detail: "check the port in the connector's spec.address; http:// is for plain HTTP",
    },
  ],
  [/DH_KEY_TOO_SMALL$|EE_KEY_TOO_SMALL$/, weak("a key that it uses")],
];

const firstMatch = (
  failures: readonly (readonly [RegExp, TlsFailure])[],
  text: string,
): TlsFailure | undefined => failures.find(([pattern]) => pattern.test(text))?.[1];

/**
 * Says in words what an error of a TLS handshake means.
 * @param code of the error, as Node has it: `CERT_HAS_EXPIRED`, `ERR_SSL_WRONG_VERSION_NUMBER`
 * @param message of the error
 * @returns undefined where it is no error of TLS
 */
export function tlsFailure(code: string, message: string): TlsFailure | undefined {
  const known = Object.hasOwn(certificateFailures, code) ? certificateFailures[code] : undefined;
  if (known !== undefined) return known;
  if (code === "UNSPECIFIED") {
    const words = message.slice(0, 100);
    return (
      firstMatch(unspecifiedFailures, message) ??
      invalid(`its certificate can't be verified (${words})`)
    );
  }
  if (/CERT|SIGNATURE|^UNABLE_TO_|CRL/.test(code) && !code.startsWith("ERR_")) {
    return invalid(`its certificate can't be verified (${inWords(code)})`);
  }
  if (!code.startsWith("ERR_SSL_")) return undefined;
  const why = `the TLS handshake failed (${inWords(code.slice("ERR_SSL_".length))})`;
  return firstMatch(handshakeFailures, code) ?? { why, detail: undefined };
}

const inWords = (code: string): string => code.toLowerCase().replaceAll("_", " ");
