import { expect } from "chai";
import { parseConnector } from "../../src/connector/connector.ts";
import type { IdentityAuth, Platform } from "../../src/connector/identity-auth.ts";
import { describeProblems } from "../../src/connector/problem.ts";

const read = (auth: object, platform: Platform, spec: object = {}): IdentityAuth | string => {
  const parsed = parseConnector(
    {
      apiVersion: "connectors.alauda.io/v1alpha1",
      kind: "Connector",
      metadata: { name: "quay", namespace: "team-a" },
      spec: { connectorClassName: "oci", address: "https://quay.io", auth, ...spec },
    },
    platform,
  );
  if (!parsed.ok) return describeProblems(parsed.problems);
  return parsed.value.identity ?? "anonymous";
};
const params = (values: Readonly<Record<string, unknown>>): object => ({
  params: Object.entries(values).map(([name, value]) => ({ name, value })),
});
const account = { serviceAccountRef: { name: "puller" } };

describe("a Connector's identity", () => {
  const exchanges: readonly [given: Readonly<Record<string, string>>, exchange?: object][] = [
    [{ preset: "quay", robot: "acme+puller" }],
    [{ preset: "jfrog", provider: "our-cluster" }],
    [{ preset: "jfrog", provider: "our-cluster", username: "ci" }],
    [{ preset: "rfc8693", tokenPath: "/oauth2/token" }],
    [{ preset: "rfc8693", tokenPath: "/a/b-c/d.e", username: "ci" }],
    [{ preset: "password", username: "jwt" }],
    [{ preset: "bearer" }],
    [
      { preset: "bearer", robot: "acme+puller", repository: "library/busybox" },
      { preset: "bearer" },
    ],
  ];
  for (const [given, exchange = given] of exchanges) {
    it(`is read with ${JSON.stringify(given)}`, () => {
      expect(read({ name: "oidcAuth", ...account, ...params(given) }, "cluster")).to.deep.equal({
        method: "oidcAuth",
        source: { kind: "serviceAccount", name: "puller" },
        exchange,
      });
      const inFile = params({ ...given, tokenFile: "quay.jwt", audience: "ours" });
      expect(read({ name: "oidcAuth", ...inFile }, "standalone")).to.deep.equal({
        method: "oidcAuth",
        source: { kind: "tokenFile", name: "quay.jwt" },
        exchange,
        audience: "ours",
      });
    });
  }

  it("may be a credential helper, in standalone mode", () => {
    const auth = { name: "execAuth", ...params({ helper: "ecr-login" }) };
    expect(read(auth, "standalone")).to.deep.equal({ method: "execAuth", helper: "ecr-login" });
    expect(read(auth, "cluster")).to.contain('spec.auth.name: found "execAuth"');
    const insecure = { address: "http://127.0.0.1:5000", addressExtensions: ["https://b.test"] };
    expect(read(auth, "standalone", insecure)).to.include({ method: "execAuth" });
  });

  const bearer = params({ preset: "bearer" });
  const refused: readonly (readonly [platform: Platform, auth: object, says: string])[] = [
    ["cluster", { ...bearer }, "spec.auth.serviceAccountRef.name: found nothing"],
    ["cluster", { serviceAccountRef: { name: "A" }, ...bearer }, "the name of a ServiceAccount"],
    [
      "cluster",
      { serviceAccountRef: { name: "a", namespace: "team-b" }, ...bearer },
      'spec.auth.serviceAccountRef.namespace: found "team-b"',
    ],
    ["cluster", { ...account, secretRef: { name: "s" }, ...bearer }, "spec.auth.secretRef: found"],
    ["cluster", { ...account, ...params({ preset: "bearer", tokenFile: "a" }) }, "no tokenFile"],
    ["cluster", { ...account, ...params({ preset: "github" }) }, "wanted quay, jfrog, rfc8693"],
    ["cluster", { ...account, ...params({ preset: 7 }) }, "wanted quay, jfrog, rfc8693"],
    ["cluster", { ...account, ...params({ preset: "quay", robot: "a:b" }) }, "the robot account"],
    ["cluster", { ...account, ...params({ preset: "quay", robot: "a\nb" }) }, "the robot account"],
    ["cluster", { ...account, ...params({ preset: "jfrog" }) }, "provider: found nothing"],
    ["cluster", { ...account, ...params({ preset: "password" }) }, "username: found nothing"],
    ...[
      "oauth2/token",
      "/../token",
      "//evil.test/token",
      "/a/../b",
      "/a?b=c",
      "/a%2fb",
      "https://evil.test",
      "/a\\b",
      "/",
    ].map(
      (tokenPath) =>
        [
          "cluster",
          { ...account, ...params({ preset: "rfc8693", tokenPath }) },
          "the path of the token exchange",
        ] as const,
    ),
    ["cluster", { ...account, ...params({ preset: "bearer", audience: "a b" }) }, "one audience"],
    ["cluster", { ...account, ...params({ preset: "bearer", audience: ["a"] }) }, "one audience"],
    ["standalone", { ...bearer }, "tokenFile: found nothing"],
    ["standalone", { ...account, ...bearer }, "there are no ServiceAccounts in standalone mode"],
    ...["../a", "a/b", ".hidden", "", "/etc/passwd", "a\u0000b"].map(
      (tokenFile) =>
        [
          "standalone",
          params({ preset: "bearer", tokenFile }),
          "in the folder of --token-files",
        ] as const,
    ),
  ];
  for (const [platform, auth, says] of refused) {
    it(`is refused in ${platform} mode with ${JSON.stringify(auth)}`, () => {
      expect(read({ name: "oidcAuth", ...auth }, platform)).to.contain(says);
    });
  }

  for (const helper of ["../a", "a/b", "", ".x"]) {
    it(`is no helper of the name ${JSON.stringify(helper)}`, () => {
      const auth = { name: "execAuth", ...params({ helper }) };
      expect(read(auth, "standalone")).to.contain("of the program docker-credential-ecr-login");
    });
  }

  it("demands TLS, and one address", () => {
    const auth = { name: "oidcAuth", ...account, ...bearer };
    expect(read(auth, "cluster", { address: "http://quay.io" })).to.contain(
      "https:// with oidcAuth",
    );
    const second = { addressExtensions: [{ value: "https://b.test" }] };
    expect(read(auth, "cluster", second)).to.contain("spec.addressExtensions: found");
  });
});
