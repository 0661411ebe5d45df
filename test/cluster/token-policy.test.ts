/** For whom a real API server lets the accounts of an installation request tokens: daemonset/token-policy.yaml. */
import { writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { expect } from "chai";
import { parseAllDocuments } from "yaml";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { type Cluster, startCluster } from "./cluster.ts";
import { changedSettings, writeOverlay } from "./overlay.ts";

const root = join(import.meta.dirname, "../..");
const system = "platform-oci";
const operators = "our'\"\\artifactory";

const allowed: readonly string[] = [
  "https://registry.example.com",
  "https://registry.example.com:8443",
  "https://registry",
  "https://[fd00::1]:5000",
  operators,
  "urn:other",
  "sts.amazonaws.com",
  "api://AzureADTokenExchange",
  "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a/providers/b",
  "project-1.svc.id.goog",
];

const refused: readonly (readonly string[])[] = [
  [],
  ["https://registry.example.com", "sts.amazonaws.com"],
  ["https://registry.example.com", "https://kubernetes.default.svc"],
  ["https://kubernetes.default.svc"],
  ["https://kubernetes.default.svc.cluster.local"],
  ["https://kubernetes.default.svc.cluster.local:443"],
  ["https://kubernetes"],
  ["kubernetes.default.svc"],
  ["https://team-12ab.hcp.westeurope.azmk8s.io"],
  ["https://registry.example.com/"],
  ["https://registry.example.com/v2"],
  ["https://user@registry.example.com"],
  ["https://Registry.example.com"],
  ["http://registry.example.com"],
  ["https://"],
  ["https://registry.example.com\nsts.amazonaws.com"],
  ["registry.example.com"],
  ["artifactory.example.com"],
  ["urn:other=artifactory.example.com"],
  ["https://sts.eu-central-1.amazonaws.com"],
  ["STS.amazonaws.com"],
  ["sts.amazonaws.com.example.com"],
  ["api://AzureADTokenExchange/more"],
  ["https://login.microsoftonline.com"],
  ["https://iam.googleapis.com"],
  ["//sts.googleapis.com/projects/1"],
  ["https://project-1.svc.id.goog"],
  ["connectors-proxy"],
  ["connectors-images"],
];

describe("the policy for tokens of identities", function () {
  this.timeout(120_000);
  const resources = cleanup();
  let cluster: Cluster;

  const tokenFor = (user: string, audiences: readonly string[]): Promise<string> =>
    cluster.kubectl(
      [
        "create",
        "--raw",
        "/api/v1/namespaces/team-a/serviceaccounts/puller/token",
        "-f",
        "-",
      ].concat(user === "" ? [] : [`--as=${user}`]),
      JSON.stringify({
        apiVersion: "authentication.k8s.io/v1",
        kind: "TokenRequest",
        spec: { audiences, expirationSeconds: 600 },
      }),
    );
  const errorOf = (user: string, audiences: readonly string[]): Promise<string> =>
    tokenFor(user, audiences).then(() => "", String);
  const accountOf = (namespace: string, name: string): string =>
    `system:serviceaccount:${namespace}:${name}`;

  before(async function () {
    this.timeout(30 * 60_000); // building the API server cold
    cluster = resources.add(await startCluster({ nodes: 0 }));
    if (!cluster.own) this.skip(); // it installs rights and policies of the whole cluster
    const overlay = join(resources.add(makeTempFolder("token-policy")).path, "overlay");
    const base = relative(overlay, join(root, "daemonset"));
    await writeOverlay(overlay, {
      namespace: system,
      resources: [base],
      transformers: [`${base}/settings-in-fields`],
      ...changedSettings({ envs: ["audiences.env"] }),
    });
    const setting = `${operators}=artifactory.example.com, urn:other=registry.corp:8443`;
    await writeFile(join(overlay, "audiences.env"), `OIDC_AUDIENCES=${setting}\n`);
    const text = await cluster.kubectl(["kustomize", overlay]);
    const items = parseAllDocuments(text)
      .map((document) => document.toJS() as { kind: string })
      .filter(({ kind }) => /Namespace|Account|Role|Binding$|^ValidatingAdmission/.test(kind));
    const list = JSON.stringify({ apiVersion: "v1", kind: "List", items });
    await cluster.kubectl(["apply", "-f", "-"], list);
    for (const namespace of ["team-a", "team-b"]) {
      await cluster.kubectl(["create", "namespace", namespace]);
    }
    await cluster.kubectl(["create", "serviceaccount", "puller", "-n", "team-a"]);
    const role = ["create", "role", "puller", "-n", "team-a", "--verb=create"];
    const token = ["--resource=serviceaccounts/token", "--resource-name=puller"];
    await cluster.kubectl([...role, ...token]);
    const accounts = [
      `${system}:connectors-node`,
      `${system}:connectors-controller`,
      `${system}:other`,
      "team-b:connectors-node",
    ];
    const binding = ["create", "rolebinding", "puller", "-n", "team-a", "--role=puller"];
    await cluster.kubectl([...binding, ...accounts.map((name) => `--serviceaccount=${name}`)]);
    await eventually(
      async () => (await errorOf(accountOf(system, "connectors-node"), [])) !== "",
      () => "the API server does not know the policy",
      30_000,
    );
  });
  after(resources.stop);

  for (const name of ["connectors-node", "connectors-controller"]) {
    it(`lets ${name} have tokens for one registry or one cloud`, async () => {
      for (const audience of allowed) {
        expect(await errorOf(accountOf(system, name), [audience]), audience).to.equal("");
      }
    });

    it(`refuses ${name} every other token, and says which there are`, async () => {
      for (const audiences of refused) {
        const error = await errorOf(accountOf(system, name), audiences);
        const what = JSON.stringify(audiences);
        expect(error, what).to.contain("ValidatingAdmissionPolicy 'tokens.connectors.alauda.io'");
        // Kubernetes shows no message of several lines.
        if (!audiences.join("").includes("\n")) {
          expect(error, what).to.contain("wanted exactly one: the origin of a registry");
        }
      }
    });
  }

  it("is found with its binding by the label of an uninstallation", async () => {
    const kinds = "validatingadmissionpolicy,validatingadmissionpolicybinding";
    const label = "app.kubernetes.io/part-of=oci-connector";
    const found = await cluster.kubectl(["get", kinds, "-l", label, "-o", "name"]);
    const names = found.split("\n").filter((line) => line.endsWith("/tokens.connectors.alauda.io"));
    expect(names).to.have.length(2);
  });

  it("knows this API server's audience, as docs/rights.md shows it", async () => {
    const create = ["create", "token", "puller", "-n", "team-a"];
    const own = JSON.parse(
      await cluster.kubectl([...create, "-o", "jsonpath={.spec.audiences}"]),
    ) as readonly string[];
    expect(own).not.to.have.length(0);
    for (const audience of own) {
      const error = await errorOf(accountOf(system, "connectors-node"), [audience]);
      expect(error, audience).to.contain("tokens.connectors.alauda.io");
    }
  });

  it("is about no other account, even of the same name", async () => {
    for (const user of ["", accountOf(system, "other"), accountOf("team-b", "connectors-node")]) {
      for (const audiences of [[], ["anything"], ["a", "b"]]) {
        expect(await errorOf(user, audiences), user).to.equal("");
      }
    }
  });
});
