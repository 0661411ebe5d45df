import { expect } from "chai";
import fc from "fast-check";
import { parse } from "yaml";
import { type Connector, parseConnector } from "../../src/connector/connector.ts";
import { isConnectorName, isNamespace } from "../../src/connector/connector-ref.ts";
import { addressRule } from "../../src/connector/registry-address.ts";

/** The smallest document, with something in place of a part of it. */
const withSpec = (spec: object, metadata: object = {}): unknown => ({
  apiVersion: "connectors.alauda.io/v1alpha1",
  kind: "Connector",
  metadata: { name: "harbor", namespace: "team-a", ...metadata },
  spec: { connectorClassName: "oci", address: "https://harbor.example.com", ...spec },
});

function accepted(document: unknown): Connector {
  const connector = parseConnector(document);
  if (!connector.ok) throw new Error(JSON.stringify(connector.problems));
  return connector.value;
}

const smallest: Omit<Connector, "address"> = {
  name: "harbor",
  namespace: "team-a",
  uid: "team-a/harbor",
  addressExtensions: [],
  allowedRealmHosts: [],
  allowedRedirectHosts: [],
};

/** `path: found` of each problem. */
function problems(document: unknown): readonly string[] {
  const connector = parseConnector(document);
  return connector.ok ? [] : connector.problems.map(({ path, found }) => `${path}: ${found}`);
}

describe("a Connector document", () => {
  it("is read with every field", () => {
    const document: unknown = parse(`
apiVersion: connectors.alauda.io/v1alpha1
kind: Connector
metadata:
  name: harbor
  namespace: team-a
  uid: 0b6f4d3e
  annotations: {cpaas.io/description: "Pull and push for team A"}
spec:
  connectorClassName: oci
  address: https://harbor.example.com:8443/base/path
  addressExtensions: [{name: mirror, value: "https://mirror.example.com"}, "http://10.1.2.3:5000"]
  auth:
    name: tokenAuth
    secretRef: {name: harbor, namespace: team-a}
    params: [{name: repository, value: library/busybox}]
  caCertSecretRef: {name: harbor-ca}
  params:
  - {name: allowedRealmHosts, value: "auth.example.com, Login.Example.com"}
  - {name: allowedRedirectHosts, value: [10.1.2.3, storage.example.com]}
  - {name: somethingElse, value: {of: any kind}}
status:
  observedGeneration: 3
`);
    const { address, addressExtensions, ...rest } = accepted(document);
    expect(address.origin + address.basePath).to.equal("https://harbor.example.com:8443/base/path");
    expect(addressExtensions.map(({ origin }) => origin)).to.deep.equal([
      "https://mirror.example.com",
      "http://10.1.2.3:5000",
    ]);
    expect(rest).to.deep.equal({
      name: "harbor",
      namespace: "team-a",
      uid: "0b6f4d3e",
      secretName: "harbor",
      caCertSecretName: "harbor-ca",
      probeRepository: "library/busybox",
      allowedRealmHosts: ["auth.example.com", "login.example.com"],
      allowedRedirectHosts: ["10.1.2.3", "storage.example.com"],
    });
  });

  it("may be as small as this", () => {
    const { address, ...rest } = accepted(withSpec({}));
    expect(address.origin).to.equal("https://harbor.example.com");
    expect(rest).to.deep.equal(smallest);
  });

  describe("whose status another controller writes", () => {
    const managedBy = (...entries: readonly object[]): object => ({ managedFields: entries });
    const other = { manager: "connectors-manager", subresource: "status", operation: "Update" };
    const problems = (document: unknown): readonly (readonly [string, string])[] => {
      const parsed = parseConnector(document);
      return parsed.ok ? [] : parsed.problems.map(({ path, wanted }) => [path, wanted]);
    };

    it("is left to that one where it is of the class harbor", () => {
      const spec = { connectorClassName: "harbor" };
      expect(problems(withSpec(spec, managedBy(other)))).to.deep.equal([
        [
          "spec.connectorClassName",
          '"oci": the Connector is left to "connectors-manager", which writes its status',
        ],
      ]);
    });

    it("has only our own name of the method", () => {
      const spec = { auth: { name: "basic-auth" } };
      expect(problems(withSpec(spec, managedBy(other)))).to.deep.equal([
        ["spec.auth.name", '"tokenAuth" or "oidcAuth"'],
      ]);
      expect(problems(withSpec({ auth: { name: "tokenAuth" } }, managedBy(other)))).to.deep.equal(
        [],
      );
    });

    it("is ours where we write it, or others write anything but the status", () => {
      const ours = { manager: "oci-connector", subresource: "status", operation: "Apply" };
      const person = { manager: "kubectl-client-side-apply", operation: "Update" };
      const spec = { connectorClassName: "harbor", auth: { name: "basicAuth" } };
      expect(problems(withSpec(spec, managedBy(person, ours)))).to.deep.equal([]);
    });
  });

  const accepts: readonly [claim: string, document: unknown, expected: Partial<Connector>][] = [
    ["without a Secret is anonymous", withSpec({ auth: { name: "tokenAuth" } }), {}],
    [
      "without a method of authentication takes the one there is",
      withSpec({ auth: { secretRef: { name: "s" } } }),
      { secretName: "s" },
    ],
    ["may have Alauda's name of the class", withSpec({ connectorClassName: "harbor" }), {}],
    ...["basicAuth", "basic-auth"].map((name): [string, unknown, Partial<Connector>] => [
      `may call the method ${name}, as Alauda does`,
      withSpec({ connectorClassName: "harbor", auth: { name, secretRef: { name: "s" } } }),
      { secretName: "s" },
    ]),
    [
      "may leave the Secret's namespace empty",
      withSpec({ auth: { secretRef: { name: "s", namespace: "" } } }),
      { secretName: "s" },
    ],
    [
      "may have fields that say null",
      withSpec({ auth: null, caCertSecretRef: null, addressExtensions: null, params: null }),
      {},
    ],
    [
      "may have null inside of its authentication",
      withSpec({ auth: { name: null, secretRef: { name: "s", namespace: null }, params: null } }),
      { secretName: "s" },
    ],
    [
      "has a uid of its own even where it says an empty one",
      withSpec({}, { uid: "" }),
      { uid: "team-a/harbor" },
    ],
    [
      "may name no repository to probe",
      withSpec({ auth: { params: [{ name: "repository", value: "" }] } }),
      {},
    ],
    [
      "may have a parameter without a value",
      withSpec({ params: [{ name: "allowedRealmHosts" }] }),
      { allowedRealmHosts: [] },
    ],
    [
      "may have a trailing comma among hosts",
      withSpec({ params: [{ name: "allowedRealmHosts", value: "a.test," }] }),
      { allowedRealmHosts: ["a.test"] },
    ],
    [
      "may leave redirects to clients of the forward proxy",
      withSpec({ params: [{ name: "redirects", value: "pass" }] }),
      { passesRedirects: true },
    ],
    [
      "may say that the proxy follows them, as without a word",
      withSpec({ params: [{ name: "redirects", value: "follow" }] }),
      {},
    ],
    [
      "may have parameters that nobody knows",
      withSpec({ params: [{ name: "x", value: {} }, 7, null, "y"] }),
      {},
    ],
  ];
  for (const [claim, document, expected] of accepts) {
    it(claim, () => {
      const { address: _address, ...rest } = accepted(document);
      expect(rest).to.deep.equal({ ...smallest, ...expected });
    });
  }
});

describe("a Connector document with mistakes", () => {
  it("is answered with all of them at once, each with its place and what is right there", () => {
    const document = {
      apiVersion: "connectors.alauda.io/v1",
      kind: "connector",
      metadata: { name: "Harbor", namespace: "team_a" },
      spec: {
        connectorClassName: "git",
        address: "harbor.example.com",
        addressExtensions: [{ name: "api", value: "ftp://a" }, "b"],
        auth: {
          name: "oauth",
          secretRef: { name: "S", namespace: "team-b" },
          params: [{ name: "repository", value: "Library/BusyBox" }],
        },
        caCertSecretRef: { name: "-" },
        params: [
          { name: "allowedRealmHosts", value: "https://auth.example.com" },
          { name: "allowedRedirectHosts", value: [7] },
        ],
      },
    };
    const label = (length: number) => `a DNS label of at most ${length} characters (a-z, 0-9, "-")`;
    const secret = "the name of a Secret (a DNS subdomain of at most 253 characters)";
    const hosts =
      "host names without scheme and port, separated by commas: auth.example.com,10.1.2.3";
    expect(parseConnector(document)).to.deep.equal({
      ok: false,
      problems: [
        ["apiVersion", '"connectors.alauda.io/v1"', "connectors.alauda.io/v1alpha1"],
        ["kind", '"connector"', "Connector"],
        ["metadata.name", '"Harbor"', label(61)],
        ["metadata.namespace", '"team_a"', label(63)],
        ["spec.connectorClassName", '"git"', '"oci", the only connector class'],
        ["spec.address", '"harbor.example.com"', addressRule],
        ["spec.addressExtensions.0.value", '"ftp://a"', addressRule],
        ["spec.addressExtensions.1", '"b"', addressRule],
        ["spec.auth.name", '"oauth"', '"tokenAuth" or "oidcAuth"'],
        ["spec.auth.secretRef.namespace", '"team-b"', "nothing, or the Connector's own namespace"],
        ["spec.auth.secretRef.name", '"S"', secret],
        ["spec.caCertSecretRef.name", '"-"', secret],
        [
          "spec.auth.params.0.value",
          '"Library/BusyBox"',
          "the name of a repository, such as library/busybox",
        ],
        ["spec.params.0.value", '"https://auth.example.com"', hosts],
        ["spec.params.1.value", "[7]", hosts],
      ].map(([path, found, wanted]) => ({ path, found, wanted })),
    });
  });

  it("that is no document at all is told what every document has", () => {
    const all = [
      "apiVersion: nothing",
      "kind: nothing",
      "metadata.name: nothing",
      "metadata.namespace: nothing",
      "spec.connectorClassName: nothing",
      "spec.address: nothing",
    ];
    const inherited: unknown = Object.create(Object(withSpec({})));
    const value = { spec: "x", metadata: [] };
    for (const document of [undefined, null, 7, "Connector", [], {}, value, inherited]) {
      expect(problems(document), JSON.stringify(document)).to.deep.equal(all);
    }
  });

  const refused: readonly [claim: string, document: unknown, found: string][] = [
    [
      "a Secret of another namespace, which would give one tenant the password of another",
      withSpec({ auth: { secretRef: { name: "s", namespace: "team-b" } } }),
      'spec.auth.secretRef.namespace: "team-b"',
    ],
    [
      "a Secret of all namespaces",
      withSpec({ auth: { secretRef: { name: "s", namespace: "*" } } }),
      'spec.auth.secretRef.namespace: "*"',
    ],
    [
      "a namespace of the Secret that is no text",
      withSpec({ auth: { secretRef: { name: "s", namespace: ["team-a"] } } }),
      'spec.auth.secretRef.namespace: ["team-a"]',
    ],
    [
      "a Secret whose name could lead elsewhere in the API",
      withSpec({ auth: { secretRef: { name: "../secrets/other" } } }),
      'spec.auth.secretRef.name: "../secrets/other"',
    ],
    [
      "a Secret without a name",
      withSpec({ auth: { secretRef: {} } }),
      "spec.auth.secretRef.name: nothing",
    ],
    [
      "a name in place of the reference to a Secret",
      withSpec({ auth: { secretRef: "harbor" } }),
      'spec.auth.secretRef: "harbor"',
    ],
    [
      "a name in place of all authentication, which would make the connector anonymous",
      withSpec({ auth: "harbor" }),
      'spec.auth: "harbor"',
    ],
    [
      "a list in place of authentication",
      withSpec({ auth: [{ secretRef: { name: "s" } }] }),
      'spec.auth: [{"secretRef":{"name":"s"}}]',
    ],
    [
      "a name in place of the reference to certificates, which would then not be trusted",
      withSpec({ caCertSecretRef: "harbor-ca" }),
      'spec.caCertSecretRef: "harbor-ca"',
    ],
    [
      "a reference to certificates without a name",
      withSpec({ caCertSecretRef: {} }),
      "spec.caCertSecretRef.name: nothing",
    ],
    [
      "a text in place of a list of parameters, told once",
      withSpec({ params: "x" }),
      'spec.params: "x"',
    ],
    [
      "an object in place of a list of addresses",
      withSpec({ addressExtensions: { api: "https://a.test" } }),
      'spec.addressExtensions: {"api":"https://a.test"}',
    ],
    [
      "an address without a value",
      withSpec({ addressExtensions: [{ name: "api" }] }),
      "spec.addressExtensions.0.value: nothing",
    ],
    [
      "a repository that is no text",
      withSpec({ auth: { params: [{ name: "repository", value: 7 }] } }),
      "spec.auth.params.0.value: 7",
    ],
    [
      "a host with a port",
      withSpec({ params: [{ name: "allowedRealmHosts", value: "a.test:443" }] }),
      'spec.params.0.value: "a.test:443"',
    ],
    [
      "a host that pretends to be a text",
      withSpec({ params: [{ name: "allowedRealmHosts", value: [["a.test"]] }] }),
      'spec.params.0.value: [["a.test"]]',
    ],
    [
      "a host that can't be made a text",
      withSpec({ params: [{ name: "allowedRealmHosts", value: [{ toString: 1 }] }] }),
      'spec.params.0.value: [{"toString":1}]',
    ],
    [
      "another way of redirects",
      withSpec({ params: [{ name: "redirects", value: true }] }),
      "spec.params.0.value: true",
    ],
    [
      "a way of redirects that is not said",
      withSpec({ params: [{ name: "redirects" }] }),
      'spec.params.0.value: ""',
    ],
    ["a uid that is no text", withSpec({}, { uid: 7 }), "metadata.uid: 7"],
  ];
  for (const [claim, document, found] of refused) {
    it(`is refused: ${claim}`, () => {
      expect(problems(document)).to.deep.equal([found]);
    });
  }

  it("does not show the password that somebody put into an address", () => {
    const address = "https://bob:s3cr3t@harbor.example.com";
    const document = withSpec({ address, addressExtensions: [address, { value: address }] });
    expect(problems(document)).to.have.length(3);
    expect(problems(document).join()).not.to.contain("s3cr3t");
  });
});

describe("Connector documents of existing installations", () => {
  const upstream: readonly [claim: string, yaml: string][] = [
    [
      "a registry that needs no credential",
      `
apiVersion: connectors.alauda.io/v1alpha1
kind: Connector
metadata: {name: oci-registry, namespace: default}
spec:
  connectorClassName: oci
  address: https://registry.example.com
  auth: {name: tokenAuth}
`,
    ],
    [
      "a registry with a Secret, without its namespace",
      `
apiVersion: connectors.alauda.io/v1alpha1
kind: Connector
metadata: {name: oci-registry, namespace: default}
spec:
  connectorClassName: oci
  address: "https://registry.example.com"
  auth: {name: tokenAuth, secretRef: {name: registry-auth}}
`,
    ],
    [
      "a document as the API server gives it, with all that a reference may say",
      `
apiVersion: connectors.alauda.io/v1alpha1
kind: Connector
metadata:
  name: harbor
  namespace: team-a
  uid: 5f0f2c0e-8f4b-4d1c-9d55-0d4a6d3b8a11
  resourceVersion: "4711"
  generation: 2
  creationTimestamp: "2026-01-01T00:00:00Z"
  labels: {team: a}
  managedFields: [{manager: kubectl}]
spec:
  connectorClassName: oci
  address: https://harbor.example.com
  addressExtensions:
  - {name: api, value: "https://api.harbor.example.com"}
  auth:
    name: tokenAuth
    params: [{name: repository, value: library/busybox}]
    secretRef: {apiVersion: v1, kind: Secret, name: harbor-secret, namespace: team-a}
  caCertSecretRef: {name: harbor-ca}
  params: []
status:
  api: {path: /connectors/v1/namespaces/team-a/connectors/harbor}
  conditions: [{type: Ready, status: "True", severity: Info}]
  proxy:
    httpAddress:
      url: http://c-harbor.team-a.svc.cluster.local/namespaces/team-a/connectors/harbor
`,
    ],
  ];
  for (const [claim, yaml] of upstream) {
    it(`parse unchanged: ${claim}`, () => {
      expect(problems(parse(yaml))).to.deep.equal([]);
    });
  }
});

describe("a Connector document, whatever it holds", () => {
  /** A right document in which some values are replaced by any others. */
  const value = fc.oneof(
    fc.jsonValue(),
    fc.constantFrom<unknown>("a.test", { toString: 1, valueOf: 1 }, [], "", { name: "s" }),
  );
  const maybe = <T>(right: T) =>
    fc.option(fc.oneof(fc.constant<unknown>(right), value), { nil: undefined });
  const param = fc.record({
    name: maybe("allowedRealmHosts"),
    value: maybe("a.test,b.test"),
  });
  const document = fc.record({
    apiVersion: fc.constant("connectors.alauda.io/v1alpha1"),
    kind: fc.constant("Connector"),
    metadata: fc.oneof(
      fc.record({ name: maybe("harbor"), namespace: maybe("team-a"), uid: maybe("u") }),
      value,
    ),
    spec: fc.record({
      connectorClassName: maybe("oci"),
      address: maybe("https://harbor.example.com"),
      addressExtensions: fc.oneof(fc.array(maybe({ name: "a", value: "http://b" })), value),
      auth: fc.oneof(
        fc.record({
          name: maybe("tokenAuth"),
          secretRef: maybe({ name: "s", namespace: "team-a" }),
          params: maybe([{ name: "repository", value: "a/b" }]),
        }),
        value,
      ),
      caCertSecretRef: maybe({ name: "ca" }),
      params: fc.oneof(fc.array(param), value),
    }),
  });

  it("the answer is a connector or a list of problems, never an exception", () => {
    fc.assert(
      fc.property(fc.oneof(document, fc.jsonValue()), (any) => {
        const connector = parseConnector(any);
        if (!connector.ok) expect(connector.problems).not.to.deep.equal([]);
      }),
      { numRuns: 1000 },
    );
  }).timeout(20_000);

  it("an accepted connector holds nothing but checked texts", () => {
    fc.assert(
      fc.property(document, (any) => {
        const result = parseConnector(any);
        if (!result.ok) return;
        const { name, namespace, uid, secretName, allowedRealmHosts } = result.value;
        expect(isConnectorName(name) && isNamespace(namespace)).to.equal(true);
        expect(uid).to.be.a("string").and.not.equal("");
        expect(secretName ?? "none").to.match(/^[a-z0-9.-]+$/);
        for (const host of allowedRealmHosts) expect(host).to.match(/^[a-z0-9.-]+$/);
      }),
      { numRuns: 1000 },
    );
  }).timeout(20_000);
});
