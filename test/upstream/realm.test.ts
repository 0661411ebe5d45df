import { expect } from "chai";
import { checkRealm } from "../../src/upstream/realm.ts";
import { testConnector } from "../proxy/test-proxy.ts";

describe("checkRealm(): a token realm", () => {
  const accepted: readonly (readonly [string, string, string?])[] = [
    ["https://harbor.test", "https://harbor.test/service/token"],
    ["https://harbor.test", "https://harbor.test:8443/token"],
    ["https://harbor.test", "HTTPS://HARBOR.TEST/token"],
    ["https://harbor.test", "https://harbor.test/token?a=b"],
    ["http://harbor.test", "http://harbor.test/token"],
    ["http://harbor.test", "https://harbor.test/token"],
    ["https://registry.example.co.uk", "https://auth.example.co.uk/token"],
    ["https://docker.io", "https://auth.docker.io/token"],
    ["https://registry.gitlab.com", "https://gitlab.com/jwt/auth"],
    ["https://nvcr.io", "https://authn.nvidia.com/token"],
    ["https://ghcr.io", "https://ghcr.io/token"],
    [
      "https://rg.fr-par.scw.cloud",
      "https://api.scaleway.com/registry-internal/v1/regions/fr-par/tokens",
    ],
    [
      "https://rg.nl-ams.scw.cloud",
      "https://api.scaleway.com/registry-internal/v1/regions/nl-ams/tokens",
    ],
    ["http://10.0.0.5:5000", "http://10.0.0.5:5001/token"],
    ["https://[fd00::5]:5000", "https://[fd00::5]/token"],
    ["http://localhost:5000", "http://localhost:5001/token"],
    ["https://registry", "https://registry/token"],
    ["https://harbor.test", "https://login.other.test/token", "login.other.test"],
    ["https://harbor.test", "https://10.1.2.3/token", "x.test, 10.1.2.3"],
  ];
  for (const [address, realm, allowed = ""] of accepted) {
    it(`of ${address}: ${realm}`, () => {
      const checked = checkRealm(realm, connectorAt(address, allowed), true);
      expect(checked).to.have.deep.property("value", new URL(realm));
    });
  }

  const refused: readonly (readonly [string, string, string])[] = [
    ["https://harbor.test", "https://attacker.example/token", "another domain"],
    ["https://harbor.test", "https://harbor.test.attacker.example/token", "another domain"],
    ["https://harbor.test", "https://xharbor.test/token", "another domain"],
    ["https://harbor.test", "https://harbor.test@attacker.example/token", "user"],
    ["https://harbor.test", "https://user@harbor.test/token", "user"],
    ["https://harbor.test", "https://:password@harbor.test/token", "user"],
    ["https://harbor.test", "https://attacker.example\\@harbor.test/token", "another domain"],
    ["https://harbor.test", "http://harbor.test/token", "uses https"],
    ["https://harbor.test", "ftp://harbor.test/token", "not an http or https URL"],
    ["https://harbor.test", "file:///etc/passwd", "not an http or https URL"],
    ["https://harbor.test", "/token", "not an http or https URL"],
    ["https://harbor.test", "//harbor.test/token", "not an http or https URL"],
    ["https://harbor.test", "", "not an http or https URL"],
    ["https://harbor.test", "https://", "not an http or https URL"],
    ["https://harbor.test", "https://10.0.0.1/token", "another domain"],
    // Public suffixes under which others register.
    ["https://a.github.io", "https://b.github.io/token", "another domain"],
    ["https://a.s3.amazonaws.com", "https://b.s3.amazonaws.com/token", "another domain"],
    ["https://a.co.uk", "https://b.co.uk/token", "another domain"],
    // The pairs hold in one direction, and for these hosts alone.
    ["https://gitlab.com", "https://nvcr.io/token", "another domain"],
    ["https://authn.nvidia.com", "https://nvcr.io/token", "another domain"],
    ["https://rg.fr-par.scw.cloud.attacker.test", "https://api.scaleway.com/t", "another domain"],
    ["https://x.rg.fr-par.scw.cloud", "https://api.scaleway.com/t", "another domain"],
    ["https://rg.fr-par.scw.cloud", "https://x.api.scaleway.com/t", "another domain"],
    ["https://lscr.io", "https://ghcr.io/token", "another domain"],
    ["https://harbor.test", `https://harbor.test/${"x".repeat(4077)}`, "4097 characters"],
    // IP addresses and names without dots have no domain.
    ["http://10.0.0.5", "http://10.0.0.6/token", "another domain"],
    ["http://10.0.0.5", "http://169.254.169.254/token", "another domain"],
    ["http://10.0.0.5", "http://0x0a000006/token", "another domain"],
    ["http://registry", "http://other/token", "another domain"],
    ["http://127.0.0.1", "http://localhost/token", "another domain"],
  ];
  for (const [address, realm, reason] of refused) {
    it(`not of ${address}: ${realm}`, () => {
      const checked = checkRealm(realm, connectorAt(address, ""), true);
      if (checked.ok) throw new Error("accepted");
      expect(checked.reason).to.contain(reason);
      expect(checked.reason).to.not.contain("password");
    });
  }

  it("may be of any domain where there is no credential, but is still over TLS, and no user's", () => {
    const refusalOf = (realm: string): string | undefined => {
      const checked = checkRealm(realm, connectorAt("https://lscr.io", ""), false);
      return checked.ok ? undefined : checked.reason;
    };
    expect(refusalOf("https://ghcr.io/token")).to.equal(undefined);
    expect(refusalOf("http://ghcr.io/token")).to.contain("uses https");
    expect(refusalOf("https://user@ghcr.io/token")).to.contain("user");
    expect(refusalOf("file:///etc/passwd")).to.contain("not an http or https URL");
  });

  it("tells how to allow another host", () => {
    const checked = checkRealm(
      "https://login.other.test/t",
      connectorAt("https://a.test", ""),
      true,
    );
    expect(checked).to.have.property("reason").that.contains("allowedRealmHosts");
    expect(checked).to.have.property("reason").that.contains('"login.other.test"');
  });
});

const connectorAt = (address: string, allowedRealmHosts: string) =>
  testConnector("r", address, [{ name: "allowedRealmHosts", value: allowedRealmHosts }]);
