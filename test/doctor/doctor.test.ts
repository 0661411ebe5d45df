import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import type { DoctorSettings } from "../../src/config/doctor-command.ts";
import type { LookupAddresses } from "../../src/doctor/check-connector.ts";
import type { Finding } from "../../src/doctor/report.ts";
import { examine } from "../../src/roles/doctor.ts";
import {
  type FakeApiServer,
  type FakeObject,
  startFakeApiServer,
} from "../kube/fake-api-server.ts";
import { cleanup } from "../support/cleanup.ts";
import { type EgressTestProxy, startEgressProxy } from "../support/egress-proxy.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { runProgram, systemPath } from "../support/program.ts";
import { searchSecrets } from "../support/secrets-search.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import {
  connectorWith,
  login,
  putHealthyCluster,
  type Served,
  serveAs,
  system,
  team,
} from "./healthy-cluster.ts";

const settings: DoctorSettings = {
  connector: { namespace: team, name: "harbor" },
  serviceAccount: { namespace: team, name: "builder" },
  context: undefined,
  installNamespace: system,
  output: "text",
};

describe("the doctor", function () {
  this.timeout(30_000);
  const resources = cleanup();
  let server: FakeApiServer;
  let registry: FakeRegistry;
  let served: Served;

  beforeEach(async () => {
    served = { version: "v1.35.4", knows: true, allows: ["get connectors"], forbidden: undefined };
    server = resources.add(await startFakeApiServer());
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    server.intercept = serveAs(served);
    await putHealthyCluster(server, registry.url);
  });
  afterEach(resources.stop);

  const inCluster: LookupAddresses = async () => ["10.96.0.50"];
  const findings = async (
    more: Partial<DoctorSettings> & { readonly resolve?: LookupAddresses | undefined } = {},
  ): Promise<readonly Finding[]> => {
    const { resolve, ...others } = { resolve: inCluster, ...more };
    const sections = await examine({ ...settings, ...others }, server.access, resolve);
    return sections.flatMap((section) => section.findings);
  };
  /** Changes an object of the healthy cluster. */
  const change = (plural: string, name: string, namespace: string, more: object): void => {
    const { metadata: _, ...object } = server.get(plural, name, namespace) as unknown as FakeObject;
    const metadata = namespace === "" ? { name } : { name, namespace };
    server.put(plural, { ...object, ...more, metadata });
  };
  const specOf = (plural: string, name: string, namespace = ""): object =>
    (server.get(plural, name, namespace) as unknown as { spec: object }).spec;
  const changeSpec = (plural: string, name: string, namespace: string, more: object): void =>
    change(plural, name, namespace, { spec: { ...specOf(plural, name, namespace), ...more } });

  const changeData = (more: Readonly<Record<string, string>>): void => {
    const name = "connectors-settings";
    const { data } = server.get("configmaps", name, system) as unknown as { data: object };
    change("configmaps", name, system, { data: { ...data, ...more } });
  };

  it("finds the namespace of the installation, unless told", async () => {
    const titles = async (installNamespace: string | undefined): Promise<readonly string[]> => {
      const sections = await examine(
        { ...settings, connector: undefined, installNamespace },
        server.access,
        undefined,
      );
      return sections.map(({ title }) => title);
    };
    const { metadata: _, ...daemonSet } = server.get(
      "daemonsets",
      "connectors-node",
      system,
    ) as unknown as FakeObject;
    server.remove("daemonsets", "connectors-node", system);
    expect(await titles(undefined)).to.deep.equal(["Installation in namespace connectors-system"]);
    const labels = { "app.kubernetes.io/name": "oci-connector" };
    server.put("daemonsets", {
      ...daemonSet,
      metadata: { name: "connectors-node", namespace: "platform-oci", labels },
    } as FakeObject);
    expect(await titles(undefined)).to.deep.equal(["Installation in namespace platform-oci"]);
    expect(await titles("elsewhere")).to.deep.equal(["Installation in namespace elsewhere"]);
  });

  it("finds nothing wrong where nothing is", async () => {
    const found = await findings();
    expect(found.filter(({ verdict }) => verdict !== "ok")).to.deep.equal([]);
    expect(found.map(({ subject }) => subject)).to.deep.equal([
      "API server",
      "Connector definition",
      "CSIDriver",
      "settings",
      "DaemonSet",
      "registration",
      "controller",
      "proxy's certificates",
      "proxy's keys",
      "proxy's Service",
      "who may push",
      "Connector",
      "conditions",
      "Service",
      "DNS",
      "Secret",
      "CA Secret",
      "registry",
      "login",
      "right to pull",
      "right to push",
    ]);
  });

  it("asks for nothing but what can be read, and reviews", async () => {
    await findings();
    const writes = server.requests.filter(({ method }) => method !== "GET");
    for (const { path } of writes) expect(path).to.match(/\/subjectaccessreviews$/);
  });

  interface Case {
    readonly what: string;
    readonly arrange: () => void;
    readonly subject: string;
    readonly verdict: Finding["verdict"];
    /** Parts of what was found, and of the advice. */
    readonly says: readonly string[];
    readonly resolve?: LookupAddresses;
  }

  const cases: readonly Case[] = [
    {
      what: "that there is no definition",
      arrange: () => server.remove("customresourcedefinitions", "connectors.connectors.alauda.io"),
      subject: "Connector definition",
      verdict: "failed",
      says: [
        "connectors.alauda.io/v1alpha1 is not known to the API server",
        "kubectl apply -k my-cluster/",
      ],
    },
    {
      what: "that another version is served",
      arrange: () =>
        changeSpec("customresourcedefinitions", "connectors.connectors.alauda.io", "", {
          versions: [{ name: "v1", served: true }],
        }),
      subject: "Connector definition",
      verdict: "failed",
      says: ["the API server serves v1, wanted v1alpha1"],
    },
    {
      what: "that the definition has no status",
      arrange: () =>
        changeSpec("customresourcedefinitions", "connectors.connectors.alauda.io", "", {
          versions: [{ name: "v1alpha1", served: true }],
        }),
      subject: "Connector definition",
      verdict: "failed",
      says: ["no status subresource"],
    },
    {
      what: "that the API server does not take the definition",
      arrange: () =>
        change("customresourcedefinitions", "connectors.connectors.alauda.io", "", {
          status: { conditions: [{ type: "NamesAccepted", status: "False", message: "taken" }] },
        }),
      subject: "Connector definition",
      verdict: "failed",
      says: ["NamesAccepted is not True: taken"],
    },
    {
      what: "that there is no CSIDriver",
      arrange: () => server.remove("csidrivers", "connectors-csi"),
      subject: "CSIDriver",
      verdict: "failed",
      says: ["there is no CSIDriver"],
    },
    {
      what: "what a CSIDriver lacks",
      arrange: () =>
        changeSpec("csidrivers", "connectors-csi", "", {
          requiresRepublish: false,
          podInfoOnMount: undefined,
          volumeLifecycleModes: ["Persistent"],
        }),
      subject: "CSIDriver",
      verdict: "failed",
      says: ["requiresRepublish", "podInfoOnMount", "lacks Ephemeral"],
    },
    {
      what: "that tokens are for somebody else",
      arrange: () =>
        changeSpec("csidrivers", "connectors-csi", "", { tokenRequests: [{ audience: "vault" }] }),
      subject: "CSIDriver",
      verdict: "failed",
      says: ['for "vault"', 'accepts only tokens for "connectors-proxy"'],
    },
    {
      what: "that there are no tokens",
      arrange: () => changeSpec("csidrivers", "connectors-csi", "", { tokenRequests: [] }),
      subject: "CSIDriver",
      verdict: "failed",
      says: ["volumes get no token"],
    },
    {
      what: "that tokens live too short",
      arrange: () =>
        changeSpec("csidrivers", "connectors-csi", "", {
          tokenRequests: [{ audience: "connectors-proxy", expirationSeconds: 1799 }],
        }),
      subject: "CSIDriver",
      verdict: "warning",
      says: ["1799 s", "TOKEN_LIFETIME", "1800 or more"],
    },
    {
      what: "that tokens could be kept out of the attributes",
      arrange: () =>
        changeSpec("csidrivers", "connectors-csi", "", { serviceAccountTokenInSecrets: undefined }),
      subject: "CSIDriver",
      verdict: "warning",
      says: ["serviceAccountTokenInSecrets", "remove the component older-kubernetes"],
    },
    {
      what: "nothing against tokens in the attributes of an older Kubernetes",
      arrange() {
        served.version = "v1.34.9+k3s1";
        changeSpec("csidrivers", "connectors-csi", "", { serviceAccountTokenInSecrets: undefined });
      },
      subject: "CSIDriver",
      verdict: "ok",
      says: ["live 3600 s"],
    },
    {
      what: "that tokens live as long as before, though a setting was changed",
      arrange: () => changeData({ TOKEN_LIFETIME: "7200" }),
      subject: "settings",
      verdict: "failed",
      says: [
        'TOKEN_LIFETIME is "7200", but the CSIDriver has 3600',
        "transformers: [../oci-connector/daemonset/settings-in-fields]",
      ],
    },
    {
      what: "that tokens are for the audience before, though a setting was changed",
      arrange: () => changeData({ AUDIENCE: "mine" }),
      subject: "settings",
      verdict: "failed",
      says: ['AUDIENCE is "mine", but the CSIDriver has "connectors-proxy"'],
    },
    {
      what: "which folders of the kubelet are not those of the settings",
      arrange: () =>
        changeData({
          KUBELET_PODS: "/k/pods",
          KUBELET_PLUGIN: "/k/plugins/connectors-csi",
          KUBELET_REGISTRATION: "/k/plugins_registry",
        }),
      subject: "settings",
      verdict: "failed",
      says: [
        'KUBELET_PODS is "/k/pods", but the DaemonSet has "/var/lib/kubelet/pods"',
        "KUBELET_PLUGIN is",
        "KUBELET_REGISTRATION is",
      ],
    },
    {
      what: "that the settings can't be read",
      arrange: () => server.remove("configmaps", "connectors-settings", system),
      subject: "settings",
      verdict: "not checked",
      says: ["the ConfigMap that the DaemonSet names"],
    },
    {
      what: "that there is no DaemonSet",
      arrange: () => server.remove("daemonsets", "connectors-node", system),
      subject: "DaemonSet",
      verdict: "failed",
      says: ["there is no DaemonSet connectors-system/"],
    },
    {
      what: "that no Pod of it is ready",
      arrange: () =>
        change("daemonsets", "connectors-node", system, { status: { desiredNumberScheduled: 2 } }),
      subject: "DaemonSet",
      verdict: "failed",
      says: ["0 of 2", "kubectl get pods"],
    },
    {
      what: "that some Pod of it is not ready",
      arrange: () =>
        change("daemonsets", "connectors-node", system, {
          status: { desiredNumberScheduled: 2, numberReady: 1 },
        }),
      subject: "DaemonSet",
      verdict: "warning",
      says: ["1 of 2"],
    },
    {
      what: "that no node is to have it",
      arrange: () => change("daemonsets", "connectors-node", system, { status: {} }),
      subject: "DaemonSet",
      verdict: "warning",
      says: ["no node"],
    },
    {
      what: "which kubelet does not know the driver",
      arrange: () =>
        server.put("csinodes", { metadata: { name: "node2" }, spec: { drivers: [{ name: "x" }] } }),
      subject: "registration",
      verdict: "failed",
      says: ["1 of 2", "not node2", "FailedMount", "KUBELET_REGISTRATION"],
    },
    {
      what: "that a node without the driver is away itself",
      arrange() {
        server.remove("csinodes", "node2");
        const conditions = [{ type: "Ready", status: "Unknown" }];
        server.put("nodes", { metadata: { name: "node2" }, status: { conditions } });
      },
      subject: "registration",
      verdict: "warning",
      says: ["not node2", "not ready"],
    },
    {
      what: "nothing against a node with Windows",
      arrange: () =>
        server.put("nodes", {
          metadata: { name: "w", labels: { "kubernetes.io/os": "windows" } } as { name: string },
        }),
      subject: "registration",
      verdict: "ok",
      says: ["2 of 2"],
    },
    {
      what: "nothing against nodes that are no machines",
      arrange() {
        const labels = [
          { "eks.amazonaws.com/compute-type": "fargate" },
          { type: "virtual-kubelet" },
        ];
        for (const [index, one] of labels.entries()) {
          server.put("nodes", { metadata: { name: `v${index}`, labels: one } as { name: string } });
        }
      },
      subject: "registration",
      verdict: "ok",
      says: ["2 of 2"],
    },
    {
      what: "the first of many nodes",
      arrange() {
        for (let index = 3; index < 12; index += 1) {
          server.put("nodes", { metadata: { name: `node${index}` } });
        }
      },
      subject: "registration",
      verdict: "failed",
      says: ["2 of 11", "node3, node4, node5, node6, node7 and 4 more"],
    },
    {
      what: "that there is no controller",
      arrange: () => server.remove("deployments", "connectors-controller", system),
      subject: "controller",
      verdict: "failed",
      says: ["there is no Deployment"],
    },
    {
      what: "that no controller is available",
      arrange: () => change("deployments", "connectors-controller", system, { status: {} }),
      subject: "controller",
      verdict: "failed",
      says: ["0 of 1", "kubectl describe pods"],
    },
    {
      what: "that one of the controllers is not available",
      arrange: () =>
        change("deployments", "connectors-controller", system, {
          spec: { replicas: 2 },
          status: { availableReplicas: 1 },
        }),
      subject: "controller",
      verdict: "warning",
      says: ["1 of 2"],
    },
    {
      what: "that there are no certificates",
      arrange: () => server.remove("configmaps", "connectors-proxy-ca", system),
      subject: "proxy's certificates",
      verdict: "failed",
      says: ["no volume can be"],
    },
    {
      what: "that what should be certificates are none",
      arrange: () =>
        change("configmaps", "connectors-proxy-ca", system, { data: { "ca.crt": "x" } }),
      subject: "proxy's certificates",
      verdict: "failed",
      says: ["no certificate under"],
    },
    {
      what: "that there are no keys",
      arrange: () => server.remove("secrets", "connectors-proxy-keys", system),
      subject: "proxy's keys",
      verdict: "failed",
      says: ["no proxy is ready"],
    },
    {
      what: "what is wrong with the keys",
      arrange: () => change("secrets", "connectors-proxy-keys", system, { data: {} }),
      subject: "proxy's keys",
      verdict: "failed",
      says: ["ca.key: found nothing", "docs/ca-rotation.md"],
    },
    {
      what: "that nobody may look at the keys",
      arrange() {
        served.forbidden = /connectors-proxy-keys/;
      },
      subject: "proxy's keys",
      verdict: "not checked",
      says: ["not allowed to read it"],
    },
    {
      what: "that there is no Service of the proxies",
      arrange: () => server.remove("services", "connectors-proxy", system),
      subject: "proxy's Service",
      verdict: "failed",
      says: ["there is no Service"],
    },
    {
      what: "which port the Service of the proxies lacks",
      arrange: () => changeSpec("services", "connectors-proxy", system, { ports: [{ port: 80 }] }),
      subject: "proxy's Service",
      verdict: "failed",
      says: ["lacks the port 443"],
    },
    {
      what: "that no proxy is ready",
      arrange: () => server.remove("endpointslices", "connectors-proxy-abc", system),
      subject: "proxy's Service",
      verdict: "failed",
      says: ["no proxy behind", "kubectl logs"],
    },
    {
      what: "that nobody may look at endpoints",
      arrange() {
        served.forbidden = /endpointslices/;
      },
      subject: "proxy's Service",
      verdict: "not checked",
      says: ["endpoints are not known"],
    },
    {
      what: "that there is no such Connector",
      arrange: () => server.remove("connectors", "harbor", team),
      subject: "Connector",
      verdict: "failed",
      says: ["there is no Connector team-a/harbor", "kubectl get connectors -n team-a"],
    },
    {
      what: "what is wrong with a Connector",
      arrange: () => server.put("connectors", connectorWith({ address: "x" })),
      subject: "Connector",
      verdict: "failed",
      says: ['spec.address: found "x"', "kubectl edit connector harbor -n team-a"],
    },
    {
      what: "that the next release refuses a Connector",
      arrange: () =>
        changeSpec("connectors", "harbor", team, {
          params: [{ name: "immutableTags", value: Array<string>(1_001).fill("v*") }],
        }),
      subject: "Connector",
      verdict: "warning",
      says: ["the next release refuses it: spec.params.0.value: found 1001 patterns"],
    },
    {
      what: "that nobody has looked at a Connector",
      arrange: () => change("connectors", "harbor", team, { status: {} }),
      subject: "conditions",
      verdict: "failed",
      says: ["no controller has examined"],
    },
    {
      what: "that the conditions are of an older Connector",
      arrange: () =>
        changeSpec("connectors", "harbor", team, { params: [{ name: "x", value: "y" }] }),
      subject: "conditions",
      verdict: "warning",
      says: ["before its last change"],
    },
    {
      what: "which condition is False",
      arrange: () =>
        server.put("connectors", {
          ...connectorWith({ address: registry.url }, { SecretReady: ["False", "SecretInvalid"] }),
        }),
      subject: "SecretReady",
      verdict: "failed",
      says: ["SecretInvalid: SecretInvalid!", "docs/connector.md"],
    },
    {
      what: "that certificates are for information",
      arrange: () =>
        server.put(
          "connectors",
          connectorWith({ address: registry.url }, { CACertReady: ["False", "SecretNotFound"] }),
        ),
      subject: "CACertReady",
      verdict: "warning",
      says: ["SecretNotFound"],
    },
    {
      what: "that there is no Secret",
      arrange: () => server.remove("secrets", "login", team),
      subject: "Secret",
      verdict: "failed",
      says: ["there is no Secret team-a/login", "kubectl create secret generic login -n team-a"],
    },
    {
      what: "the type and the keys of a Secret that is wrong",
      arrange: () => change("secrets", "login", team, { type: "Opaque", data: { user: "YQ==" } }),
      subject: "Secret",
      verdict: "failed",
      says: ['of type "Opaque" with the keys user', "username: found nothing"],
    },
    {
      what: "that nobody may look at the Secret",
      arrange() {
        served.forbidden = /secrets\/login/;
      },
      subject: "Secret",
      verdict: "not checked",
      says: ["not allowed to read it"],
    },
    {
      what: "that the login can't be tried without the Secret",
      arrange() {
        served.forbidden = /secrets\/login/;
      },
      subject: "login",
      verdict: "not checked",
      says: ["the Secret can't be read"],
    },
    {
      what: "that a connector is anonymous",
      arrange: () => changeSpec("connectors", "harbor", team, { auth: {} }),
      subject: "Secret",
      verdict: "ok",
      says: ["anonymously"],
    },
    {
      what: "that there is no Secret with certificates",
      arrange: () => changeSpec("connectors", "harbor", team, { caCertSecretRef: { name: "ca" } }),
      subject: "CA Secret",
      verdict: "warning",
      says: ["there is no Secret team-a/ca"],
    },
    {
      what: "that there is no Secret with the client certificate",
      arrange: () =>
        changeSpec("connectors", "harbor", team, {
          params: [{ name: "clientCertSecret", value: "client" }],
        }),
      subject: "client certificate",
      verdict: "failed",
      says: ["there is no Secret team-a/client", "kubectl create secret tls client -n team-a"],
    },
    {
      what: "what is wrong with the Secret of the client certificate",
      arrange: () =>
        changeSpec("connectors", "harbor", team, {
          params: [{ name: "clientCertSecret", value: "login" }],
        }),
      subject: "client certificate",
      verdict: "failed",
      says: ["wanted kubernetes.io/tls", "tls.crt: found no certificate"],
    },
    {
      what: "that a Secret with certificates has none",
      arrange: () =>
        changeSpec("connectors", "harbor", team, { caCertSecretRef: { name: "login" } }),
      subject: "CA Secret",
      verdict: "warning",
      says: ["no certificate in PEM, only the keys password, username"],
    },
    {
      what: "that there is no Service of the connector",
      arrange: () => server.remove("services", "c-harbor", team),
      subject: "Service",
      verdict: "failed",
      says: ["there is no Service team-a/c-harbor"],
    },
    {
      what: "where a Service leads astray",
      arrange: () =>
        changeSpec("services", "c-harbor", team, { externalName: "proxy.elsewhere.svc" }),
      subject: "Service",
      verdict: "failed",
      says: ["leads to proxy.elsewhere.svc", "kubectl delete service c-harbor -n team-a"],
    },
    {
      what: "that a Service is somebody else's",
      arrange: () => changeSpec("services", "c-harbor", team, { type: "ClusterIP" }),
      subject: "Service",
      verdict: "failed",
      says: ["is a ClusterIP"],
    },
    {
      what: "that DNS does not know the connector",
      arrange: () => undefined,
      resolve: async () => {
        throw Object.assign(new Error("no"), { code: "ENOTFOUND" });
      },
      subject: "DNS",
      verdict: "failed",
      says: ["c-harbor.team-a.svc.cluster.local can't be resolved (ENOTFOUND)", "CLUSTER_DOMAIN"],
    },
    {
      what: "that DNS leads elsewhere",
      arrange: () => undefined,
      resolve: async () => ["10.96.0.99"],
      subject: "DNS",
      verdict: "warning",
      says: ["at 10.96.0.99", "at 10.96.0.50"],
    },
    {
      what: "that the registry is away",
      arrange: () => server.put("connectors", connectorWith({ address: "http://127.0.0.1:1" })),
      subject: "registry",
      verdict: "failed",
      says: ["ConnectionFailed", "nothing listens there"],
    },
    {
      what: "that the registry does not accept the login",
      arrange: () => {
        const data = {
          username: "YWxpY2U=",
          password: Buffer.from("wrong-password").toString("base64"),
        };
        change("secrets", "login", team, { data });
      },
      subject: "login",
      verdict: "failed",
      says: ["AuthenticationFailed"],
    },
    {
      what: "that the ServiceAccount is not there",
      arrange: () => server.remove("serviceaccounts", "builder", team),
      subject: "ServiceAccount",
      verdict: "warning",
      says: ["there is no ServiceAccount team-a/builder", "kubectl create serviceaccount builder"],
    },
    {
      what: "which right is missing, and how to give it",
      arrange() {
        served.allows = [];
      },
      subject: "right to pull",
      verdict: "failed",
      says: [
        "rules: [{apiGroups: [connectors.alauda.io], resources: [connectors], resourceNames: [harbor], verbs: [get]}]",
        "--clusterrole=connectors-user --serviceaccount=team-a:builder",
      ],
    },
    {
      what: "which rights are missing where pushes need their own",
      arrange: () =>
        change("configmaps", "connectors-settings", system, {
          data: {
            AUDIENCE: "connectors-proxy",
            SEPARATE_PUSH: "true",
            CLUSTER_DOMAIN: "cluster.local",
          },
        }),
      subject: "right to push",
      verdict: "failed",
      says: ["verbs: [update]"],
    },
    {
      what: "that no Role is needed, where the installation says so",
      arrange() {
        served.allows = [];
        change("configmaps", "connectors-settings", system, {
          data: {
            AUDIENCE: "connectors-proxy",
            DEFAULT_PERMISSION: "namespace",
            CLUSTER_DOMAIN: "cluster.local",
          },
        });
      },
      subject: "right to push",
      verdict: "ok",
      says: ["team-a/builder needs no Role", "DEFAULT_PERMISSION=namespace"],
    },
    {
      what: "that nobody may ask for rights",
      arrange() {
        served.forbidden = /subjectaccessreviews/;
      },
      subject: "right to pull",
      verdict: "not checked",
      says: ["access can't be reviewed"],
    },
    {
      what: "what the Connector's rules allow",
      arrange: () =>
        changeSpec("connectors", "harbor", team, {
          params: [
            {
              name: "rules",
              value: [
                { verbs: ["pull"], repositories: ["base/**"] },
                { verbs: ["push"], repositories: ["app/*"], serviceAccounts: ["team-a/*"] },
                { verbs: ["delete"], repositories: ["**"], serviceAccounts: ["team-b/*"] },
              ],
            },
          ],
        }),
      subject: "rules",
      verdict: "ok",
      says: ["team-a/builder may pull in base/**; push in app/*"],
    },
    {
      what: "that no rule of the Connector is for somebody",
      arrange: () =>
        changeSpec("connectors", "harbor", team, {
          params: [
            {
              name: "rules",
              value: [{ verbs: ["pull"], repositories: ["**"], serviceAccounts: ["team-b/*"] }],
            },
          ],
        }),
      subject: "rules",
      verdict: "failed",
      says: ["none of the Connector's 1 rules"],
    },
  ];
  for (const { what, arrange, subject, verdict, says, resolve } of cases) {
    it(`says ${what}`, async () => {
      arrange();
      const found = (await findings({ resolve: resolve ?? inCluster })).filter(
        (finding) => finding.subject === subject,
      );
      expect(found.map((finding) => finding.verdict)).to.deep.equal([verdict]);
      const text = found.map((finding) => `${finding.found} → ${finding.advice}`).join();
      for (const part of says) expect(text).to.contain(part);
    });
  }

  describe("with a company's proxy", () => {
    let company: EgressTestProxy;
    const setEgress = (more: Readonly<Record<string, string>>): void => {
      const { data } = server.get("configmaps", "connectors-settings", system) as unknown as {
        data: object;
      };
      change("configmaps", "connectors-settings", system, { data: { ...data, ...more } });
    };
    const putLogin = (username: string): void => {
      const data = { username: toBase64(username), password: toBase64("company-secret-word") };
      const metadata = { name: "connectors-egress-login", namespace: system };
      server.put("secrets", { metadata, type: "Opaque", data } as FakeObject);
    };
    const toBase64 = (text: string): string => Buffer.from(text).toString("base64");
    const of = (found: readonly Finding[], subject: string): Finding | undefined =>
      found.find((finding) => finding.subject === subject);

    beforeEach(async () => {
      company = resources.add(await startEgressProxy());
      company.login = "build:company-secret-word";
      const other = await startFakeRegistry({
        auth: "bearer",
        hostname: "registry.localdomain.test",
      });
      resources.add(other);
      server.put("connectors", connectorWith({ address: other.url }));
      setEgress({ EGRESS_PROXY: `http://127.0.0.1:${company.port}`, EGRESS_RESOLVES: "true" });
    });

    it("asks the registry by it, with its login, and says so", async () => {
      putLogin("build");
      const found = await findings();
      expect(of(found, "egress proxy")).to.deep.include({ verdict: "ok" });
      expect(of(found, "egress proxy")?.found).to.contain(
        `with the login in Secret ${system}/connectors-egress-login`,
      );
      expect(of(found, "way")?.found).to.contain(
        `is reached by the egress proxy http://127.0.0.1:${company.port}`,
      );
      expect(of(found, "login")?.verdict, JSON.stringify(found)).to.equal("ok");
      expect(company.requests.length).to.be.greaterThan(0);
      expect(JSON.stringify(found)).to.not.contain("secret-word");
    });

    it("says that its login is missing, or can't be used", async () => {
      const without = await findings();
      expect(of(without, "egress proxy")?.found).to.contain("without a login: there is no Secret");
      expect(of(without, "registry")?.found).to.contain("wants a login (407)");
      putLogin("bu:ild");
      const wrong = await findings();
      expect(of(wrong, "egress proxy")?.verdict).to.equal("failed");
      expect(of(wrong, "egress proxy")?.found).to.contain("username");
      expect(JSON.stringify(wrong)).to.not.contain("secret-word");
    });

    it("takes no failure for one of the proxies where it can't read the login", async () => {
      putLogin("build");
      served.forbidden = /secrets\/connectors-egress-login$/;
      const found = await findings();
      expect(of(found, "egress proxy")?.verdict).to.equal("not checked");
      expect(of(found, "registry")?.verdict).to.equal("warning");
    });

    it("says that a registry is reached directly, or that the settings are wrong", async () => {
      setEgress({ EGRESS_NO_PROXY: ".localdomain.test" });
      expect(of(await findings(), "way")?.found).to.contain("is reached directly");
      setEgress({ EGRESS_PROXY: "proxy" });
      const found = await findings();
      expect(of(found, "egress proxy")?.verdict).to.equal("failed");
      expect(of(found, "way")).to.equal(undefined);
    });
  });

  it("says that nobody answers, and asks nothing more", async () => {
    await server.goAway();
    const found = await findings();
    expect(found.map(({ subject, verdict }) => [subject, verdict])).to.deep.equal([
      ["API server", "failed"],
    ]);
    expect(found[0]?.found).to.contain("can't be reached");
  });

  it("gets by without any right, and says what it could not look at", async () => {
    served.forbidden = /^\/api(s\/(?!connectors.alauda.io\/v1alpha1$)|\/)/;
    const found = await findings({ resolve: undefined });
    const verdicts = new Set(found.map(({ verdict }) => verdict));
    expect([...verdicts].sort()).to.deep.equal(["not checked", "ok"]);
    expect(
      found.filter(({ verdict }) => verdict === "ok").map(({ subject }) => subject),
    ).to.deep.equal(["API server", "Connector definition"]);
  });

  it("knows that there are no Connectors, also without the right to look at their definition", async () => {
    served.forbidden = /customresourcedefinitions/;
    served.knows = false;
    expect((await findings()).find(({ subject }) => subject === "Connector definition")).to.include(
      {
        verdict: "failed",
      },
    );
  });

  it("does not take what it sees from afar for what the cluster sees", async () => {
    server.put("connectors", connectorWith({ address: "http://127.0.0.1:1" }));
    const found = await findings({ resolve: undefined });
    const verdictOf = (subject: string) => found.find((one) => one.subject === subject)?.verdict;
    expect(verdictOf("registry")).to.equal("warning");
    expect(verdictOf("DNS")).to.equal("not checked");
    expect(verdictOf("login")).to.equal("not checked");
  });

  it("does not try a login that the registry has refused", async () => {
    const refused = { AuthReady: ["False", "AuthenticationFailed"] } as const;
    server.put("connectors", connectorWith({ address: registry.url }, refused));
    const found = await findings();
    expect(found.find(({ subject }) => subject === "login")).to.include({ verdict: "not checked" });
    expect(registry.requests).not.to.deep.equal([]);
    for (const { headers } of registry.requests)
      expect(String(headers.authorization)).not.to.match(/^Basic/);
  });

  it("shows what the controller says of an identity, and tries no login with it", async () => {
    // The registry of these tests has no TLS, and none is asked for more than whether it lives.
    const auth = {
      name: "oidcAuth",
      serviceAccountRef: { name: "puller" },
      params: [{ name: "preset", value: "bearer" }],
    };
    const put = (status: string, reason: string): void =>
      server.put(
        "connectors",
        connectorWith({ address: "https://127.0.0.1:1", auth }, { SecretReady: [status, reason] }),
      );
    const identity = async () => (await findings()).find(({ subject }) => subject === "identity");
    put("True", "Obtained");
    expect(await identity()).to.include({
      verdict: "ok",
      found: `oidcAuth of ServiceAccount ${team}/puller: Obtained!`,
    });
    put("False", "TokenForbidden");
    expect(await identity()).to.include({ verdict: "failed" });
    expect((await identity())?.found).to.contain("TokenForbidden: TokenForbidden!");
    put("Unknown", "Probing");
    expect(await identity()).to.include({ verdict: "not checked" });
  });

  it("looks at rights where it is told whose, and at a connector where it is told which", async () => {
    const nobody = await findings({ serviceAccount: undefined });
    expect(nobody.at(-1)).to.include({ subject: "rights", verdict: "not checked" });
    const installation = await findings({ connector: undefined });
    expect(installation.at(-1)?.subject).to.equal("who may push");
  });

  describe("says who would lose the right to push with separate-push", () => {
    const rbacGroup = "rbac.authorization.k8s.io";
    const role = (plural: "roles" | "clusterroles", name: string, rules: readonly object[]) =>
      server.put(plural, {
        metadata: plural === "roles" ? { name, namespace: team } : { name },
        rules,
      } as FakeObject);
    const bind = (
      kind: "Role" | "ClusterRole",
      name: string,
      account: string,
      namespace: string | undefined = team,
    ) => {
      const [owner, of] = account.split("/");
      server.put(namespace === "" ? "clusterrolebindings" : "rolebindings", {
        metadata: {
          name: `${name}-${of ?? account}`.replaceAll(":", "-"),
          ...(namespace !== "" && { namespace }),
        },
        roleRef: { apiGroup: rbacGroup, kind, name },
        subjects: [
          of === undefined
            ? { kind: "Group", apiGroup: rbacGroup, name: account }
            : { kind: "ServiceAccount", namespace: owner, name: of },
        ],
      } as FakeObject);
    };
    const group = ["connectors.alauda.io"];
    const viewRule = { apiGroups: group, resources: ["connectors"], verbs: ["get", "list"] };
    const pushRule = { apiGroups: group, resources: ["connectors/proxy"], verbs: ["update"] };
    const whoMayPush = async (): Promise<Finding | undefined> =>
      (await findings()).find(({ subject }) => subject === "who may push");

    beforeEach(() => {
      role("clusterroles", "view", [viewRule]);
      role("clusterroles", "user", [viewRule, pushRule]);
      role("clusterroles", "everything", [{ apiGroups: ["*"], resources: ["*"], verbs: ["*"] }]);
      role("clusterroles", "system:controller:x", [
        { apiGroups: ["*"], resources: ["*"], verbs: ["get"] },
      ]);
    });

    it("by name, and nobody else", async () => {
      bind("ClusterRole", "view", "team-a/viewer");
      bind("ClusterRole", "view", "team-b/guest");
      bind("ClusterRole", "user", "team-a/builder");
      bind("ClusterRole", "everything", "ops/admin", "");
      bind("ClusterRole", "system:controller:x", "kube-system/x", "");
      bind("ClusterRole", "view", `${system}/connectors-node`, "");
      bind("ClusterRole", "view", "system:serviceaccounts:team-c");
      bind("ClusterRole", "view", "people");
      const finding = await whoMayPush();
      expect(finding).to.include({ verdict: "ok" });
      expect(finding?.found).to.match(
        /: system:serviceaccounts:team-c, team-a\/viewer, team-b\/guest$/,
      );
    });

    it("by the connectors that a Role names", async () => {
      const named = (names: readonly string[]) => [
        { ...viewRule, resourceNames: ["harbor", "ghcr"] },
        { ...pushRule, resourceNames: names },
      ];
      role("roles", "some", named(["harbor"]));
      role("roles", "all", named(["ghcr", "harbor"]));
      bind("Role", "some", "team-a/some");
      bind("Role", "all", "team-a/all");
      // The right in another namespace is none here.
      bind("ClusterRole", "view", "team-a/elsewhere");
      bind("ClusterRole", "user", "team-a/elsewhere", "team-b");
      expect((await whoMayPush())?.found).to.match(/: team-a\/elsewhere, team-a\/some$/);
    });

    it("where a namespace's own accounts need no Role", async () => {
      change("configmaps", "connectors-settings", system, {
        data: { DEFAULT_PERMISSION: "namespace" },
      });
      bind("ClusterRole", "view", "team-a/own");
      bind("ClusterRole", "view", "team-b/guest");
      expect((await whoMayPush())?.found).to.match(/: team-b\/guest$/);
    });

    it("in a sentence that stays short, and where nobody would", async () => {
      expect((await whoMayPush())?.found).to.contain("no ServiceAccount loses it");
      for (let index = 0; index < 30; index += 1) {
        bind("ClusterRole", "view", `team-a/account-${index}`);
      }
      expect((await whoMayPush())?.found).to.match(/, and 10 more$/);
    });

    it("no more once it is on, and not where it can't be read", async () => {
      served.forbidden = /clusterroles$/;
      expect(await whoMayPush()).to.include({ verdict: "not checked" });
      change("configmaps", "connectors-settings", system, {
        data: { SEPARATE_PUSH: "true", REQUIRE_PROXY_VERB: "true" },
      });
      expect((await whoMayPush())?.found).to.contain("needs update connectors/proxy");
    });
  });

  it("says who needs no Role, also where it is not told whose rights to look at", async () => {
    change("configmaps", "connectors-settings", system, {
      data: {
        AUDIENCE: "connectors-proxy",
        DEFAULT_PERMISSION: "namespace",
        CLUSTER_DOMAIN: "cluster.local",
      },
    });
    const found = (await findings({ serviceAccount: undefined })).at(-1);
    expect(found).to.include({ subject: "rights", verdict: "ok" });
    expect(found?.found).to.contain("every ServiceAccount of namespace team-a");
  });

  describe("as a program", () => {
    const run = async (...args: readonly string[]) => {
      const folder = resources.add(makeTempFolder("doctor")).path;
      const kubeconfig = join(folder, "config");
      const { origin } = server.access.server;
      const cluster = { server: origin, "insecure-skip-tls-verify": true };
      const config = {
        apiVersion: "v1",
        kind: "Config",
        "current-context": "nowhere",
        clusters: [{ name: "c", cluster }],
        users: [{ name: "u", user: { token: "our-own-token" } }],
        contexts: [{ name: "fake", context: { cluster: "c", user: "u" } }],
      };
      await writeFile(kubeconfig, JSON.stringify(config));
      const main = join(import.meta.dirname, "../../src/main.ts");
      const all = [main, "doctor", "team-a/harbor", "--service-account=team-a/builder", ...args];
      const env = { PATH: systemPath, KUBECONFIG: kubeconfig, HOME: folder };
      return runProgram(process.execPath, all, { env });
    };

    it("prints a line for each, and ends in 0 where nothing has failed", async () => {
      const { status, stdout, stderr } = await run("--context=fake");
      expect([status, stderr]).to.deep.equal([0, ""]);
      const lines = stdout.trimEnd().split("\n");
      expect(lines[0]).to.equal("Installation in namespace connectors-system");
      expect(lines).to.include("Connector team-a/harbor");
      expect(stdout).to.match(/^ {2}ok {11}API server {12}v1\.35\.4 at http:/m);
      expect(stdout).to.match(/^ {2}not checked {2}DNS .* → run the doctor in a Pod$/m);
      expect(lines.at(-1)).to.equal("20 ok, 1 not checked");
    });

    it("ends in 1 where something has failed, and shows no secret", async () => {
      const message = "line one\nline two \u001b[31mred";
      const object = connectorWith({ address: registry.url });
      const conditions = [{ type: "SecretReady", status: "False", reason: "X", message }];
      server.put("connectors", { ...object, status: { observedGeneration: 1, conditions } });
      const { status, stdout } = await run("--context=fake");
      expect(status).to.equal(1);
      expect(stdout).to.match(/^ {2}FAILED .*line one line two \\u\{1b\}\[31mred → /m);
      const outputs = { stdout };
      const secrets = { password: login.password, token: "our-own-token" };
      expect(await searchSecrets({ secrets, outputs })).to.deep.equal([]);
    });

    it("prints JSON for programs", async () => {
      served.allows = [];
      const { status, stdout } = await run("--context=fake", "--output=json");
      expect(status).to.equal(1);
      const report = JSON.parse(stdout) as {
        ok: boolean;
        sections: { title: string; findings: Finding[] }[];
      };
      expect(report.ok).to.equal(false);
      expect(report.sections.map(({ title }) => title)).to.deep.equal([
        "Installation in namespace connectors-system",
        "Connector team-a/harbor",
      ]);
      expect(report.sections[1]?.findings.at(-1)).to.include({ verdict: "failed" });
    });

    it("says which context there is not", async () => {
      const { status, stderr } = await run();
      expect(status).to.equal(1);
      expect(stderr).to.contain('no cluster for its context "nowhere"');
    });
  });
});
