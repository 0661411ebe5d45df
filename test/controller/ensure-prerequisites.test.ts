import { expect } from "chai";
import { parseConnector } from "../../src/connector/connector.ts";
import { documentConditions } from "../../src/controller/ensure-prerequisites.ts";

/** What is wrong with a Connector of this spec, as `condition: reason`. */
function wrong(spec: object, metadata: object = {}): Record<string, string> {
  const parsed = parseConnector({
    apiVersion: "connectors.alauda.io/v1alpha1",
    kind: "Connector",
    metadata: { name: "harbor", namespace: "team-a", ...metadata },
    spec: { connectorClassName: "oci", address: "https://harbor.example.com", ...spec },
  });
  const findings = documentConditions(parsed.ok ? [] : parsed.problems);
  return Object.fromEntries(
    Object.entries(findings).map(([type, { status, reason }]) => [type, `${status} ${reason}`]),
  );
}

describe("documentConditions()", () => {
  const cases: readonly (readonly [spec: object, found: Record<string, string>])[] = [
    [{}, {}],
    [{ address: "harbor" }, { LivenessReady: "False AddressInvalid" }],
    [{ addressExtensions: [{ value: "x" }] }, { LivenessReady: "False AddressInvalid" }],
    [
      { auth: { secretRef: { name: "a", namespace: "other" } } },
      { SecretReady: "False SecretRefInvalid" },
    ],
    [{ auth: { name: "oauth" } }, { SecretReady: "False SecretRefInvalid" }],
    [
      { auth: { params: [{ name: "repository", value: "A" }] } },
      { AuthReady: "False ParametersInvalid" },
    ],
    [{ caCertSecretRef: {} }, { ConnectorClassReady: "False SpecInvalid" }],
    [{ params: "x" }, { ConnectorClassReady: "False SpecInvalid" }],
    [
      { address: "x", auth: { secretRef: {} } },
      { LivenessReady: "False AddressInvalid", SecretReady: "False SecretRefInvalid" },
    ],
  ];
  for (const [spec, found] of cases) {
    it(`places what is wrong with ${JSON.stringify(spec)}`, () => {
      expect(wrong(spec)).to.deep.equal(found);
    });
  }

  it("says of another class only that there is none", () => {
    const spec = { connectorClassName: "git", address: "ssh://x", auth: { name: "basicAuth" } };
    expect(wrong(spec)).to.deep.equal({ ConnectorClassReady: "False ConnectorClassNotFound" });
  });

  it("places a name that is none at the class", () => {
    expect(wrong({}, { name: "A" })).to.deep.equal({ ConnectorClassReady: "False SpecInvalid" });
  });

  it("names all that is wrong in one place, with its path", () => {
    const problem = (path: string) => ({ path, found: "a", wanted: "b" });
    const { LivenessReady } = documentConditions([
      problem("spec.address"),
      problem("spec.params"),
      problem("spec.addressExtensions.0"),
    ]);
    expect(LivenessReady?.message).to.equal(
      "spec.address: found a, wanted b; spec.addressExtensions.0: found a, wanted b",
    );
  });
});
