import { expect } from "chai";
import { tlsFailure } from "../../src/upstream/tls-failure.ts";

describe("tlsFailure()", () => {
  const sentences: readonly (readonly [string, string, RegExp, RegExp])[] = [
    [
      "UNSPECIFIED",
      "EE certificate key too weak",
      /^the key of its certificate is too weak/,
      /another certificate/,
    ],
    [
      "UNSPECIFIED",
      "CA certificate key too weak",
      /^the key of the authority above/,
      /another certificate/,
    ],
    [
      "UNSPECIFIED",
      "CA signature digest algorithm too weak",
      /^the signature of its/,
      /another certificate/,
    ],
    ["UNSPECIFIED", "something new", /can't be verified \(something new\)/, /another certificate/],
    ["CERT_HAS_EXPIRED", "", /has expired/, /another certificate/],
    ["CERT_NOT_YET_VALID", "", /is not valid yet/, /clock/],
    ["CRL_HAS_EXPIRED", "", /can't be verified \(crl has expired\)/, /another certificate/],
    ["UNABLE_TO_GET_ISSUER_CERT", "", /not trusted/, /issuing authority alone/],
    [
      "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED",
      "",
      /wants a client certificate/,
      /clientCertSecret/,
    ],
    [
      "ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE",
      "",
      /wants a client certificate, or/,
      /clientCertSecret/,
    ],
    ["ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE", "", /wants a client certificate, or/, /ECDHE/],
    ["ERR_SSL_TLSV1_ALERT_UNKNOWN_CA", "", /does not accept the client cert/, /clientCertSecret/],
    ["ERR_SSL_SSL/TLS_ALERT_BAD_CERTIFICATE", "", /does not accept the client cert/, /Secret/],
    ["ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED", "", /client certificate has expired/, /renew/],
    ["ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION", "", /neither TLS 1\.2 nor TLS 1\.3/, /older/],
    ["ERR_SSL_UNSUPPORTED_PROTOCOL", "", /neither TLS 1\.2 nor TLS 1\.3/, /older/],
    ["ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL", "", /HTTP\/1\.1/, /HTTP\/2 alone/],
    ["ERR_SSL_WRONG_VERSION_NUMBER", "", /is not TLS/, /http:\/\//],
    ["ERR_SSL_DH_KEY_TOO_SMALL", "", /too weak/, /certificate/],
  ];
  for (const [code, message, why, detail] of sentences) {
    it(`says what ${code} ${message} means, and what to do`, () => {
      const failure = tlsFailure(code, message);
      expect(failure?.why).to.match(why);
      expect(failure?.why).to.not.match(/[A-Z]{3,}_|UNSPECIFIED/);
      expect(failure?.detail).to.match(detail);
    });
  }

  it("has words for every other error of a handshake", () => {
    expect(tlsFailure("ERR_SSL_BAD_EXTENSION", "")?.why).to.equal(
      "the TLS handshake failed (bad extension)",
    );
  });

  for (const code of ["ECONNRESET", "EODD", "", "constructor", "ERR_INVALID_ARG_TYPE"]) {
    it(`leaves ${JSON.stringify(code)} to others`, () => {
      expect(tlsFailure(code, "")).to.equal(undefined);
    });
  }
});
