import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { parse } from "yaml";
import { parseConnector } from "../../src/connector/connector.ts";
import { loadKubeconfigAccess } from "../../src/kube/api-access.ts";
import { type ApiClient, createApiClient } from "../../src/kube/api-client.ts";
import { parseListedConnector } from "../../src/kube/find-connector.ts";
import { listAll } from "../../src/kube/list-all.ts";
import { createObjectBudget, specOnly, tenantBounds } from "../../src/kube/object-bounds.ts";
import type { KubeObject } from "../../src/kube/object-store.ts";
import { createSignatureCheck } from "../../src/kube/token-keys.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type Cluster, startCluster } from "./cluster.ts";

const manifests = join(import.meta.dirname, "../../daemonset");

const connectorWith = (spec: object, name = "harbor"): Record<string, unknown> => ({
  apiVersion: "connectors.alauda.io/v1alpha1",
  kind: "Connector",
  metadata: { name },
  spec: { connectorClassName: "oci", address: "https://harbor.example.com", ...spec },
});

/** A document as that product's documentation has it. */
const ofAlauda = (secretNamespace?: string): Record<string, unknown> => ({
  ...connectorWith({
    connectorClassName: "harbor",
    auth: { name: "basic-auth", secretRef: { name: "harbor", namespace: secretNamespace } },
  }),
  metadata: { name: "harbor", labels: { "connectors.alauda.io/connectorclass": "harbor" } },
});

const oidc = (more: object): object => ({
  name: "oidcAuth",
  serviceAccountRef: { name: "puller" },
  params: [{ name: "preset", value: "bearer" }],
  ...more,
});

/** A document with everything that may stand in one. */
const whole = `
apiVersion: connectors.alauda.io/v1alpha1
kind: Connector
metadata:
  name: harbor
  annotations: {cpaas.io/description: "Pull and push for team A"}
spec:
  connectorClassName: oci
  address: https://harbor.example.com:8443/base/path
  addressExtensions: [{name: mirror, value: "https://mirror.example.com"}]
  auth:
    name: tokenAuth
    secretRef: {apiVersion: v1, kind: Secret, name: harbor, namespace: NAMESPACE}
    params: [{name: repository, value: library/busybox}]
  caCertSecretRef: {name: harbor-ca}
  params:
  - {name: allowedRealmHosts, value: "auth.example.com, login.example.com"}
  - {name: allowedRedirectHosts, value: [10.1.2.3, storage.example.com]}
  - {name: redirects, value: pass}
status:
  observedGeneration: 3
  annotations: {a: b}
  api: {path: /kubernetes/api}
  proxy: {httpAddress: {url: "http://c-harbor.team-a.svc.cluster.local/namespaces/team-a/connectors/harbor"}}
  conditions: [{type: Ready, status: "True", reason: Ready, severity: Info, lastTransitionTime: "2026-01-01T00:00:00Z", lastProbeTime: "2026-01-01T00:10:00Z"}]
`;

describe("the Connectors' definition", function () {
  this.timeout(60_000);
  const resources = cleanup();
  const namespace = `connectors-test-${randomBytes(4).toString("hex")}`;
  let cluster: Cluster;

  before(async function () {
    this.timeout(30 * 60_000); // building the API server cold
    cluster = resources.add(await startCluster({ nodes: 0 }));
    await cluster.kubectl(["create", "namespace", namespace]);
    resources.defer(() => cluster.kubectl(["delete", "namespace", namespace, "--wait=false"]));
    const files = ["crd.yaml", "connector-policy.yaml"].flatMap((file) => [
      "-f",
      join(manifests, file),
    ]);
    await cluster.kubectl(["apply", "--server-side", ...files]);
    await cluster.kubectl(["wait", "--for=condition=Established", "crd", "--all"]);
    // A policy takes effect some time after it is there.
    const foreign = connectorWith({ auth: { secretRef: { name: "s", namespace: "other" } } });
    await eventually(
      async () => (await dryRun(foreign)).refused,
      () => "the policy has no effect",
      30_000,
    );
  });
  after(resources.stop);

  const dryRun = async (
    document: unknown,
  ): Promise<{ readonly refused: boolean; readonly output: string }> => {
    const command = ["apply", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", "-"];
    try {
      return { refused: false, output: await cluster.kubectl(command, JSON.stringify(document)) };
    } catch (error) {
      return { refused: true, output: String(error) };
    }
  };
  const inNamespace = (document: Record<string, unknown>): unknown => ({
    ...document,
    metadata: { ...(document.metadata as object), namespace },
  });

  const accepted: readonly (readonly [string, Record<string, unknown>])[] = [
    ["as small as it may be", connectorWith({})],
    ["of Docker Hub", connectorWith({ address: "https://index.docker.io/v1/" })],
    ["with a port", connectorWith({ address: "http://registry.example.com:5000" })],
    ["with the largest port", connectorWith({ address: "HTTPS://Registry.example.com:65535/" })],
    ["of an IPv6 address", connectorWith({ address: "https://[fd00::1]:5000/a//b-1/c_2~x" })],
    ["of a host without a dot", connectorWith({ address: "http://my_registry" })],
    ["with authentication but no Secret", connectorWith({ auth: { name: "tokenAuth" } })],
    ["with a Secret alone", connectorWith({ auth: { secretRef: { name: "a.b-c" } } })],
    [
      "with a Secret whose namespace is empty",
      connectorWith({ auth: { secretRef: { name: "s", namespace: "" } } }),
    ],
    [
      "without a repository to probe",
      connectorWith({ auth: { params: [{ name: "repository", value: "" }] } }),
    ],
    ["with parameters that nobody knows", connectorWith({ params: [{ name: "x", value: {} }] })],
    ["with the longest name", connectorWith({}, "n".repeat(61))],
    ["with Alauda's name of the method", connectorWith({ auth: { name: "basicAuth" } })],
    ["that was written for Alauda's product", ofAlauda()],
    ["with a ServiceAccount", connectorWith({ auth: oidc({}) })],
    [
      "with a ServiceAccount of its own namespace, by an empty name",
      connectorWith({ auth: oidc({ serviceAccountRef: { name: "a.b", namespace: "" } }) }),
    ],
  ];
  for (const [what, document] of accepted) {
    it(`accepts one ${what}`, async () => {
      const { output } = await dryRun(document);
      expect(output).to.contain("created (server dry run)");
      expect(parseConnector(inNamespace(document)).ok).to.equal(true);
    });
  }

  it("accepts one of another class as it is", async () => {
    const spec = {
      connectorClassName: "git",
      address: "https://github.com",
      auth: { name: "basicAuth", secretRef: { name: "login", namespace: "elsewhere" } },
    };
    expect((await dryRun(connectorWith(spec))).output).to.contain("created");
  });

  it("keeps one valid whose parameter was longer before there was a bound, until that changes", async () => {
    const params = [{ name: "x", value: "x".repeat(65_537) }];
    const put = async (spec: object): Promise<string> => {
      const document = JSON.stringify(connectorWith({ params, ...spec }, "long"));
      const apply = ["apply", "--server-side", "-n", namespace, "-f", "-"];
      return cluster.kubectl(apply, document).catch(String);
    };
    // The bound holds for this class alone, so this is how an older one is made.
    expect(await put({ connectorClassName: "git" })).to.contain("applied");
    expect(await put({})).to.contain("applied");
    expect(await put({ address: "https://other.example.com" })).to.contain("applied");
    const longer = [{ name: "x", value: "y".repeat(65_537) }];
    expect(await put({ params: longer })).to.contain("spec.params: found a value that is too long");
  });

  const refused: readonly (readonly [what: string, document: unknown, said: string])[] = [
    ["no address", connectorWith({ address: undefined }), "spec.address: Required value"],
    [
      "no class",
      connectorWith({ connectorClassName: undefined }),
      "spec.connectorClassName: Required value",
    ],
    ...[
      ["an address without scheme", "harbor.example.com"],
      ["an address of another scheme", "ftp://harbor.example.com"],
      ["an address with a user", "https://user:secret@harbor.example.com"],
      ["an address with a query", "https://harbor.example.com/?a=b"],
      ["an address with a fragment", "https://harbor.example.com/#a"],
      ["an address with a blank", "https://harbor.example.com/a b"],
      ["an address with a dot-dot", "https://harbor.example.com/../a"],
      ["an address without host", "https:///a"],
      ["an address with a port that is none", "https://harbor.example.com:65536"],
      ["an address with port 0", "https://harbor.example.com:0"],
      ["an address of two lines", "https://harbor.example.com\nx"],
      ["an empty address", ""],
    ].map(
      ([what = "", address = ""]) =>
        [what, connectorWith({ address }), "spec.address: Invalid value"] as const,
    ),
    [
      "another address that is none",
      connectorWith({ addressExtensions: [{ value: "https://a" }, { value: "a" }] }),
      "spec.addressExtensions[1].value: Invalid value",
    ],
    [
      "a method that the class does not have",
      connectorWith({ auth: { name: "oauth" } }),
      'spec.auth.name: Invalid value: must be "tokenAuth"',
    ],
    [
      "a Secret without a name",
      connectorWith({ auth: { secretRef: {} } }),
      "spec.auth.secretRef.name: Required value",
    ],
    [
      "a Secret whose name is none",
      connectorWith({ auth: { secretRef: { name: "../x" } } }),
      "spec.auth.secretRef.name: Invalid value",
    ],
    [
      "a Secret of another namespace",
      connectorWith({ auth: { secretRef: { name: "s", namespace: "other" } } }),
      'spec.auth.secretRef.namespace: found "other", wanted nothing, or the Connector\'s own namespace',
    ],
    [
      "a Secret of another namespace, also where the class is called harbor",
      connectorWith({
        connectorClassName: "harbor",
        auth: { secretRef: { name: "s", namespace: "other" } },
      }),
      'spec.auth.secretRef.namespace: found "other", wanted nothing, or the Connector\'s own namespace',
    ],
    [
      "a value of a parameter that is too long",
      connectorWith({ params: [{ name: "x", value: "x".repeat(65_537) }] }),
      "spec.params: found a value that is too long",
    ],
    [
      "a list in a parameter that is too long",
      connectorWith({ params: [{ name: "rules", value: Array(1_001).fill({}) }] }),
      "spec.params: found a value that is too long",
    ],
    [
      "a name in place of a Secret",
      connectorWith({ auth: { secretRef: "s" } }),
      "spec.auth.secretRef",
    ],
    [
      "a CA Secret whose name is none",
      connectorWith({ caCertSecretRef: { name: "A" } }),
      "spec.caCertSecretRef.name: Invalid value",
    ],
    [
      "a repository that is none",
      connectorWith({ auth: { params: [{ name: "repository", value: "Library/A" }] } }),
      'spec.auth.params: Invalid value: the value of "repository" must be',
    ],
    [
      "an identity without a ServiceAccount",
      connectorWith({ auth: oidc({ serviceAccountRef: undefined }) }),
      "spec.auth: Invalid value: oidcAuth takes serviceAccountRef",
    ],
    [
      "an identity and a Secret",
      connectorWith({ auth: oidc({ secretRef: { name: "s" } }) }),
      "spec.auth: Invalid value: oidcAuth takes serviceAccountRef",
    ],
    [
      "a ServiceAccount of another namespace",
      connectorWith({ auth: oidc({ serviceAccountRef: { name: "a", namespace: "other" } }) }),
      'spec.auth.serviceAccountRef.namespace: found "other", wanted nothing, or the Connector\'s own namespace',
    ],
    [
      "a ServiceAccount whose name is none",
      connectorWith({ auth: oidc({ serviceAccountRef: { name: "../a" } }) }),
      "spec.auth.serviceAccountRef.name: Invalid value",
    ],
    [
      "an identity with an address without TLS",
      connectorWith({ address: "http://harbor.example.com", auth: oidc({}) }),
      "spec.address: Invalid value: with oidcAuth",
    ],
    [
      "an identity with a second address",
      connectorWith({ addressExtensions: [{ value: "https://b.test" }], auth: oidc({}) }),
      "spec.address: Invalid value: with oidcAuth",
    ],
    [
      "an identity without a preset",
      connectorWith({ auth: oidc({ params: [] }) }),
      "spec.auth.params: Invalid value: oidcAuth takes",
    ],
    [
      "an identity of a preset that there is not",
      connectorWith({ auth: oidc({ params: [{ name: "preset", value: "github" }] }) }),
      "spec.auth.params: Invalid value: oidcAuth takes",
    ],
    [
      "a token of a file",
      connectorWith({
        auth: oidc({
          params: [
            { name: "preset", value: "bearer" },
            { name: "tokenFile", value: "token" },
          ],
        }),
      }),
      'in a cluster no "tokenFile"',
    ],
    [
      "a program",
      connectorWith({ auth: { name: "execAuth", params: [{ name: "helper", value: "a" }] } }),
      'spec.auth.name: Invalid value: must be "tokenAuth"',
    ],
    ["a name that is too long", connectorWith({}, "n".repeat(62)), "metadata.name: Invalid value"],
    ["a name with a dot", connectorWith({}, "a.b"), "metadata.name: Invalid value"],
    ["a misspelt field", connectorWith({ adress: "x" }), 'unknown field "spec.adress"'],
    [
      "a misspelt field of a Secret",
      connectorWith({ auth: { secretRef: { nmae: "x" } } }),
      'unknown field "spec.auth.secretRef.nmae"',
    ],
  ];
  for (const [what, document, said] of refused) {
    it(`refuses ${what}, and says where it stands`, async () => {
      const { refused: isRefused, output } = await dryRun(document);
      expect(isRefused, output).to.equal(true);
      expect(output).to.contain(said);
      const isMisspelt = said.startsWith("unknown field"); // those are passed over otherwise
      const isTooLong = said.startsWith("spec.params"); // it is a bound for the sum that the roles check
      const read = parseConnector(inNamespace(document as Record<string, unknown>));
      if (!isMisspelt && !isTooLong) expect(read.ok).to.equal(false);
    });
  }

  it("lets another controller's Connector be, once that one writes its status", async () => {
    const named = (document: Record<string, unknown>): Record<string, unknown> => ({
      ...document,
      metadata: { ...(document.metadata as object), name: "left" },
    });
    const create = ["create", "-n", namespace, "-f", "-"];
    await cluster.kubectl(create, JSON.stringify(named(ofAlauda())));
    const elsewhere = named(ofAlauda("elsewhere"));
    const writeStatus = async (manager: string): Promise<void> => {
      const status = JSON.stringify({ status: { writtenBy: manager } });
      const patch = ["--subresource=status", "--type=merge", "-p", status];
      const args = ["patch", "connector", "left", "-n", namespace, `--field-manager=${manager}`];
      await cluster.kubectl([...args, ...patch]);
    };
    await writeStatus("oci-connector");
    expect((await dryRun(elsewhere)).output).to.contain('found "elsewhere"');
    await writeStatus("connectors-manager");
    expect((await dryRun(elsewhere)).output).to.contain("configured (server dry run)");
    const get = [
      "get",
      "connector",
      "left",
      "-n",
      namespace,
      "-o",
      "json",
      "--show-managed-fields",
    ];
    const left = parseConnector(JSON.parse(await cluster.kubectl(get)));
    expect(left.ok ? [] : left.problems.map(({ path }) => path)).to.include(
      "spec.connectorClassName",
    );
    await cluster.kubectl(["delete", "connector", "left", "-n", namespace]);
  });

  it("gives pages that shrink, and those of its objects that are too large by name", async () => {
    const nested = { list: [{ text: "x".repeat(1_000_000) }] }; // no rule can count that
    const documents = Array.from({ length: 20 }, (_, number) =>
      connectorWith({ params: [{ name: "x", value: nested }] }, `large-${number}`),
    );
    const { apiVersion } = documents[0] ?? {};
    for (const document of documents) {
      await cluster.kubectl(["create", "-n", namespace, "-f", "-"], JSON.stringify(document));
    }
    await cluster.kubectl(
      ["create", "-n", namespace, "-f", "-"],
      JSON.stringify(connectorWith({}, "small")),
    );
    resources.defer(() =>
      cluster.kubectl(["delete", "connectors", "--all", "-n", namespace, "--wait=false"]),
    );
    const access = await loadKubeconfigAccess({ file: cluster.kubeconfig });
    const client = createApiClient({ access, timeoutMs: 60_000 });
    const path = `/apis/${apiVersion}/namespaces/${namespace}/connectors`;
    const limits: string[] = [];
    const counting: Pick<ApiClient, "request"> = {
      request(request) {
        limits.push(request.query?.limit ?? "");
        return client.request(request);
      },
    };
    const { items } = await listAll<KubeObject>(counting, path, {
      take: createObjectBudget<KubeObject>(tenantBounds, specOnly).take,
    });
    // Other tests have Connectors in this namespace, too.
    const ours = items.filter(({ metadata: { name } }) => /^(large-\d+|small)$/.test(name));
    const shown = ours.map((item) => {
      const parsed = parseListedConnector(item);
      return [item.metadata.name, parsed.ok ? "valid" : parsed.problems[0]?.wanted] as const;
    });
    const tooLarge = documents.map(
      ({ metadata }) => [(metadata as { name: string }).name, "at most 524288 bytes"] as const,
    );
    expect(new Map(shown)).to.deep.equal(new Map([...tooLarge, ["small", "valid"]]));
    expect(limits[0]).to.equal("500");
    expect(Math.min(...limits.map(Number))).to.be.below(10);

    const single = await client.request({
      path,
      query: { fieldSelector: "metadata.name=large-0" },
      accept: "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    });
    expect(JSON.stringify(single)).to.contain('"name":"large-0"').and.not.contain("xxx");
  });

  it("publishes the keys of its tokens to whoever may create nothing else", async () => {
    const access = await loadKubeconfigAccess({ file: cluster.kubeconfig });
    const isSigned = createSignatureCheck({ client: createApiClient({ access }), now: Date.now });
    await cluster.kubectl(["create", "serviceaccount", "builder", "-n", namespace]);
    const create = ["create", "token", "builder", "-n", namespace, "--audience=connectors-proxy"];
    const token = (await cluster.kubectl(create)).trim();
    expect(await isSigned(token)).to.equal(true);
    expect(await isSigned(`${token.slice(0, -8)}AAAAAAAA`)).to.equal(false);
    const mayRead = ["auth", "can-i", "get", "/openid/v1/jwks"];
    const as = "--as=system:serviceaccount:connectors-system:connectors-node";
    const groups = ["--as-group=system:serviceaccounts", "--as-group=system:authenticated"];
    expect((await cluster.kubectl([...mayRead, as, ...groups])).trim()).to.equal("yes");
  });

  it("takes a whole document, and shows it in a line", async () => {
    const text = whole.replace("NAMESPACE", namespace);
    const apply = ["apply", "--validate=strict", "-n", namespace, "-f", "-"];
    expect(await cluster.kubectl(apply, text)).to.contain("created");
    const { spec, status } = parse(text) as { spec: unknown; status: object };
    const stored = JSON.parse(
      await cluster.kubectl(["get", "conn", "harbor", "-n", namespace, "-o", "json"]),
    ) as Record<string, unknown>;
    expect(stored.spec).to.deep.equal(spec);
    expect(stored).not.to.have.property("status"); // it has an API of its own
    const patch = ["--subresource=status", "--type=merge", "-p", JSON.stringify({ status })];
    await cluster.kubectl(["patch", "connector", "harbor", "-n", namespace, ...patch]);
    const probed = "jsonpath={.status.conditions[0].lastProbeTime}";
    expect(
      await cluster.kubectl(["get", "connector", "harbor", "-n", namespace, "-o", probed]),
    ).to.equal("2026-01-01T00:10:00Z");
    const table = await cluster.kubectl(["get", "alauda", "-n", namespace]);
    const [header = "", line = ""] = table.split("\n").map((row) => row.split(/\s+/));
    expect(header).to.deep.equal(["NAME", "CLASS", "ADDRESS", "READY", "REASON", "AGE"]);
    expect(line.slice(1, 5)).to.deep.equal([
      "oci",
      "https://harbor.example.com:8443/base/path",
      "True",
      "Ready",
    ]);
  });

  it("keeps what is stored when it is updated, and when the update is taken back", async function () {
    if (!cluster.own) this.skip(); // others may use it
    const current = parse(await readFile(join(manifests, "crd.yaml"), "utf8"));
    // As a version before a field and its rule had come.
    const older = structuredClone(current);
    const { spec: specSchema } = older.spec.versions[0].schema.openAPIV3Schema.properties;
    delete specSchema.properties.addressExtensions;
    delete specSchema["x-kubernetes-validations"];
    const use = async (definition: object): Promise<void> => {
      await cluster.kubectl(["replace", "-f", "-"], JSON.stringify(definition));
      await cluster.kubectl(["wait", "--for=condition=Established", "crd", "--all"]);
    };
    const addressExtensions = [{ value: "https://mirror.example.com" }];
    const put = (name: string, spec: object): Promise<string> =>
      cluster.kubectl(
        ["apply", "-n", namespace, "-f", "-"],
        JSON.stringify(connectorWith(spec, name)),
      );
    const specOf = async (name: string): Promise<Record<string, unknown>> =>
      JSON.parse(await cluster.kubectl(["get", "connector", name, "-n", namespace, "-o", "json"]))
        .spec;
    const shows = (name: string, wanted: object | undefined): Promise<unknown> =>
      eventually(
        async () =>
          JSON.stringify((await specOf(name)).addressExtensions) === JSON.stringify(wanted),
        () => `${name} does not show ${JSON.stringify(wanted)}`,
        30_000,
      );
    await put("untouched", { addressExtensions });
    await put("written", { addressExtensions });
    await use(older);
    await put("old", {});
    await shows("untouched", undefined);
    // What the controller of an older version does.
    const patch = ["--type=merge", "--subresource=status", "-p", '{"status":{"seen":true}}'];
    await cluster.kubectl(["patch", "connector", "written", "-n", namespace, ...patch]);
    await use(current);
    await shows("untouched", addressExtensions);
    expect(await specOf("written")).not.to.have.property("addressExtensions");
    for (const name of ["untouched", "written", "old"]) {
      const spec = await specOf(name);
      expect(parseConnector(inNamespace(connectorWith(spec, name))).ok, name).to.equal(true);
      await put(name, { ...spec, address: "https://other.example.com" });
    }
  });
});
