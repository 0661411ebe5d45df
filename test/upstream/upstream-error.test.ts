import { expect } from "chai";
import { AddressRefused } from "../../src/upstream/address-guard.ts";
import { UpstreamError, unreachable } from "../../src/upstream/upstream-error.ts";

const origin = "https://harbor.test";
const coded = (code: string, cause?: unknown): Error =>
  Object.assign(new Error("secret detail", { cause }), { code });

describe("unreachable(): a registry that can't be reached", () => {
  const cases: readonly (readonly [string, unknown, string])[] = [
    ["nothing listens", coded("ECONNREFUSED"), "nothing listens there"],
    ["no such name", coded("ENOTFOUND"), "its name is unknown to DNS"],
    ["a reset", coded("ECONNRESET"), "it closed the connection"],
    [
      "several tries at one host",
      new AggregateError([coded("ETIMEDOUT")], ""),
      "it does not answer",
    ],
    ["a cause", new Error("x", { cause: coded("CONNECT_TIMEOUT") }), "it does not answer"],
    ["a signal's time", new DOMException("x", "TimeoutError"), "it does not answer"],
    ["another code", coded("EODD"), "EODD"],
    ["no code", new Error("x"), "the connection failed"],
    ["no error", "x", "the connection failed"],
  ];
  for (const [name, error, why] of cases) {
    it(name, () => {
      const found = unreachable(`the registry ${origin}`, error);
      expect(found).to.include({ fault: "ConnectionFailed", cause: error });
      expect(found.message).to.equal(`the registry ${origin} can't be reached: ${why}`);
      expect(found.detail).to.contain("tried again");
    });
  }

  const certificates: readonly (readonly [string, string, boolean])[] = [
    ["DEPTH_ZERO_SELF_SIGNED_CERT", "its certificate is self-signed", true],
    ["SELF_SIGNED_CERT_IN_CHAIN", "is signed by an authority that is not trusted", true],
    ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "is signed by an authority that is not trusted", true],
    ["UNABLE_TO_GET_ISSUER_CERT_LOCALLY", "is signed by an authority that is not trusted", true],
    // Another authority would not help.
    ["CERT_HAS_EXPIRED", "its certificate has expired", false],
    ["ERR_TLS_CERT_ALTNAME_INVALID", "its certificate is for another name", false],
  ];
  for (const [code, why, helps] of certificates) {
    it(`${code}, where a CA certificate ${helps ? "may help" : "does not help"}`, () => {
      const found = unreachable(`the registry ${origin}`, coded(code));
      expect(found.fault).to.equal("CertificateInvalid");
      expect(found.message).to.contain(why);
      expect(found.detail?.includes("caCertSecretRef")).to.equal(helps);
    });
  }

  it("is refused where its address may not be dialled, and says how to allow it", () => {
    const found = unreachable("the registry", new AddressRefused("host x is at 10.0.0.1"));
    expect(found).to.include({ fault: "AddressRefused", message: "host x is at 10.0.0.1" });
  });

  it("lets an error through that has been put into words", () => {
    const error = new UpstreamError("AccessDenied", "x");
    expect(unreachable("the registry", error)).to.equal(error);
  });
});
