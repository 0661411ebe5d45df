import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { expect } from "chai";
import { parse } from "yaml";
import { createAuthority } from "../../src/certificate-authority.ts";
import type { Connector } from "../../src/connector/connector.ts";
import { type Identity, type Result, Unavailable } from "../../src/connector/platform.ts";
import type { ApiAccess } from "../../src/kube/api-access.ts";
import { type ApiClient, createApiClient } from "../../src/kube/api-client.ts";
import { connectorsPath, createConnectorFinder } from "../../src/kube/find-connector.ts";
import { createAccessReviewer } from "../../src/kube/may-use.ts";
import type { KubeObject } from "../../src/kube/object-store.ts";
import { createUpstreamSecretsReader } from "../../src/kube/read-upstream-secrets.ts";
import { createTokenReviewer } from "../../src/kube/verify-token.ts";
import { createWatchedCache, type WatchedCache } from "../../src/kube/watched-cache.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { accessAs } from "./account-access.ts";
import { type Cluster, startCluster } from "./cluster.ts";

const audience = "connectors-proxy";

describe("the answers of a real API server", function () {
  this.timeout(120_000);
  const resources = cleanup();
  const id = randomBytes(4).toString("hex");
  const [system, team, other] = ["system", "team", "other"].map((name) => `c-${name}-${id}`) as [
    string,
    string,
    string,
  ];
  let cluster: Cluster;
  /** As the proxy's ServiceAccount, with no rights but those that it needs. */
  let client: ApiClient;
  let cache: WatchedCache<KubeObject>;
  const logged: string[] = [];
  /** What is added to the clock, so that nothing is fresh any more. */
  const now = Date.now;

  const apply = (...items: readonly object[]): Promise<string> =>
    cluster.kubectl(
      ["apply", "-f", "-"],
      JSON.stringify({ apiVersion: "v1", kind: "List", items }),
    );
  const connector = (name: string, spec: object = {}): object => ({
    apiVersion: "connectors.alauda.io/v1alpha1",
    kind: "Connector",
    metadata: { name, namespace: team },
    spec: { connectorClassName: "oci", address: "https://harbor.example.com", ...spec },
  });

  before(async function () {
    this.timeout(30 * 60_000); // building the API server cold
    cluster = resources.add(await startCluster({ nodes: 0 }));
    const crd = join(import.meta.dirname, "../../daemonset/crd.yaml");
    await cluster.kubectl(["apply", "--server-side", "-f", crd]);
    await cluster.kubectl(["wait", "--for=condition=Established", "crd", "--all"]);
    for (const namespace of [system, team, other]) {
      await cluster.kubectl(["create", "namespace", namespace]);
      resources.defer(() => cluster.kubectl(["delete", "namespace", namespace, "--wait=false"]));
    }
    resources.defer(() =>
      cluster.kubectl(["delete", "clusterrole,clusterrolebinding", `c-proxy-${id}`]),
    );
    await apply(...rights());
    client = createApiClient({ access: await accessOf("proxy") });
    const abort = new AbortController();
    resources.defer(() => abort.abort());
    cache = createWatchedCache({
      client,
      path: connectorsPath,
      log: (_level, message) => logged.push(message),
      signal: abort.signal,
      random: Math.random,
      timing: { initialRetryMs: 50, maxRetryMs: 500 },
    });
    await cache.synced;
  });
  after(resources.stop);

  /** What the proxy needs in the whole cluster, in its own namespace, and for one Secret of the team. */
  const rights = (): readonly object[] => {
    const rbac = { apiVersion: "rbac.authorization.k8s.io/v1" };
    const subjects = [{ kind: "ServiceAccount", name: "proxy", namespace: system }];
    const roleIn = (namespace: string, rule: object): readonly object[] => [
      {
        ...rbac,
        kind: "Role",
        metadata: { name: "proxy", namespace },
        rules: [{ apiGroups: [""], resources: ["secrets"], ...rule }],
      },
      {
        ...rbac,
        kind: "RoleBinding",
        metadata: { name: "proxy", namespace },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: "proxy" },
        subjects,
      },
    ];
    const create = (group: string, resource: string): object => ({
      apiGroups: [`${group}.k8s.io`],
      resources: [resource],
      verbs: ["create"],
    });
    const watch = {
      apiGroups: ["connectors.alauda.io"],
      resources: ["connectors"],
      verbs: ["get", "list", "watch"],
    };
    const accounts = [
      [system, "proxy"],
      [team, "builder"],
    ].map(([namespace, name]) => ({
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { name, namespace },
    }));
    return [
      ...accounts,
      {
        ...rbac,
        kind: "ClusterRole",
        metadata: { name: `c-proxy-${id}` },
        rules: [
          watch,
          create("authentication", "tokenreviews"),
          create("authorization", "subjectaccessreviews"),
        ],
      },
      {
        ...rbac,
        kind: "ClusterRoleBinding",
        metadata: { name: `c-proxy-${id}` },
        roleRef: {
          apiGroup: "rbac.authorization.k8s.io",
          kind: "ClusterRole",
          name: `c-proxy-${id}`,
        },
        subjects,
      },
      ...roleIn(system, { verbs: ["list"] }),
      ...roleIn(team, { verbs: ["get"], resourceNames: ["login", "late", "ca"] }),
    ];
  };

  const accessOf = (name: string): Promise<ApiAccess> =>
    accessAs(cluster, { namespace: system, name }, resources.add(makeTempFolder("account")).path);

  const reasonOf = (answer: Result<unknown>): string =>
    answer.ok ? expect.fail("it was not refused") : answer.reason;

  describe("to a watch", () => {
    const find = (name: string): ReturnType<ReturnType<typeof createConnectorFinder>> =>
      createConnectorFinder(cache)({ namespace: team, name });
    const isSeen = (name: string, state: string): Promise<unknown> =>
      eventually(
        async () => (await find(name)).state === state,
        () => `${name} is not ${state}: ${cache.staleReason}`,
        30_000,
      );

    it("show what comes, changes and goes", async () => {
      expect((await find("harbor")).state).to.equal("missing");
      await apply(connector("harbor"));
      await isSeen("harbor", "found");
      // It passes the definition, and is wrong all the same.
      await apply(connector("harbor", { params: [{ name: "allowedRealmHosts", value: "://" }] }));
      await isSeen("harbor", "invalid");
      await apply(connector("harbor", { params: [] }));
      await isSeen("harbor", "found");
      await cluster.kubectl(["delete", "connector", "harbor", "-n", team]);
      await isSeen("harbor", "missing");
      expect(cache.list()[0]?.metadata ?? {}).not.to.have.property("managedFields");
    });

    it("go on after the API server and etcd were killed", async function () {
      if (!cluster.own) this.skip();
      await apply(connector("stays"));
      await isSeen("stays", "found");
      for (const program of ["apiserver", "etcd"]) {
        await cluster.restart(program, { signal: "SIGKILL" });
        expect((await find("stays")).state).to.equal("found");
        await eventually(
          () => apply(connector(`after-${program}`)).catch(() => undefined),
          () => "the API server is still away",
          60_000,
        );
        await isSeen(`after-${program}`, "found");
        expect((await find("stays")).state).to.equal("found");
      }
      await eventually(
        () => cache.staleReason === undefined,
        () => `${cache.staleReason}`,
      );
      expect(logged.at(-1)).to.equal("watch established");
    });

    it("say that a past is gone as we expect it", async () => {
      const events = await client.watch({
        path: connectorsPath,
        query: { resourceVersion: "1", allowWatchBookmarks: "true", timeoutSeconds: "5" },
        signal: AbortSignal.timeout(30_000),
        idleTimeoutMs: 10_000,
      });
      const { value } = await events.next();
      await events.return(undefined);
      expect(value).to.have.property("type", "ERROR");
      expect(value).to.have.nested.property("object.code", 410);
    });

    it("are a matter of rights", async () => {
      const query = { labelSelector: "a=b" };
      const error = await client
        .request({ path: `/api/v1/namespaces/${team}/secrets`, query })
        .catch((e: unknown) => e);
      expect(error).to.include({ name: "ApiError", status: 403 });
      expect(String(error)).to.contain("cannot list resource");
    });
  });

  describe("about a token", () => {
    const verify = (token: string): Promise<Result<Identity>> =>
      createTokenReviewer({ client, audience, now })(token);
    const tokenOf = (pod: string, options: readonly string[] = []): Promise<string> =>
      cluster
        .kubectl([
          "create",
          "token",
          "builder",
          "-n",
          team,
          "--bound-object-kind",
          "Pod",
          "--bound-object-name",
          pod,
          ...options,
        ])
        .then((text) => text.trim());
    /** Nothing runs it: for its token it only has to be there. */
    const createPod = async (name: string): Promise<string> => {
      const containers = [{ name: "c", image: "localhost/none:1" }];
      await apply({
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name, namespace: team },
        spec: { serviceAccountName: "builder", schedulerName: "nobody", containers },
      });
      return cluster.kubectl(["get", "pod", name, "-n", team, "-o", "jsonpath={.metadata.uid}"]);
    };

    it("name its Pod", async () => {
      const uid = await createPod("build");
      const token = await tokenOf("build", [`--audience=${audience}`]);
      const user = `system:serviceaccount:${team}:builder`;
      expect(await verify(token)).to.deep.equal({
        ok: true,
        value: {
          user,
          groups: [
            "system:serviceaccounts",
            `system:serviceaccounts:${team}`,
            "system:authenticated",
          ],
          subject: `${user}/${uid}`,
          pod: { namespace: team, name: "build" },
        },
      });
    });

    it("refuse one for another audience, or with another signature", async () => {
      await createPod("build");
      expect(reasonOf(await verify(await tokenOf("build")))).to.contain(`for "${audience}"`);
      const token = await tokenOf("build", [`--audience=${audience}`]);
      const [head, claims] = token.split(".");
      const forged = `${head}.${claims}.${Buffer.alloc(256, 1).toString("base64url")}`;
      const reason = reasonOf(await verify(forged));
      expect(reason).to.contain("not signed with a key of this cluster").and.not.contain(forged);
    });

    it("refuse one whose ServiceAccount was made again, and say to recreate the Pod", async () => {
      const account = { apiVersion: "v1", kind: "ServiceAccount" };
      const metadata = { name: "again", namespace: team };
      await apply({ ...account, metadata });
      const token = async (): Promise<string> => {
        const args = ["create", "token", "again", "-n", team, `--audience=${audience}`];
        return (await cluster.kubectl(args)).trim();
      };
      const before = await token();
      expect((await verify(before)).ok).to.equal(true);
      const refusal = (): Promise<string> =>
        eventually(
          async () => {
            const result = await verify(before); // past our own cache; the API server has one, too
            return !result.ok && result.reason;
          },
          () => "the token of a ServiceAccount that is gone is still accepted",
          60_000,
        );
      await cluster.kubectl(["delete", "serviceaccount", "again", "-n", team]);
      expect(await refusal()).to.contain("create it again, and then recreate the Pod");
      await apply({ ...account, metadata });
      await eventually(
        async () => (await refusal()).includes("made again after this Pod got its token: recreate"),
        () => "it is not said that the Pod has to be recreated",
        60_000,
      );
      expect((await verify(await token())).ok).to.equal(true);
    });

    it("refuse one whose Pod is gone, some time later", async () => {
      await createPod("gone");
      const token = await tokenOf("gone", [`--audience=${audience}`]);
      expect((await verify(token)).ok).to.equal(true);
      await cluster.kubectl(["delete", "pod", "gone", "-n", team, "--force"]);
      const accepted = (): Promise<Result<Identity>> => verify(token); // past our own cache; the API server has one, too
      await eventually(
        async () => !(await accepted()).ok,
        () => "the token of a Pod that is gone is still accepted",
        60_000,
      );
      expect(reasonOf(await accepted())).to.contain("does not accept the token");
    });
  });

  describe("about a right", () => {
    const who = {
      user: `system:serviceaccount:${team}:builder`,
      groups: ["system:serviceaccounts", `system:serviceaccounts:${team}`, "system:authenticated"],
    };
    const ref = { namespace: other, name: "harbor" };

    it("name the Role that is missing, which gives it", async () => {
      const options = {
        client,
        now,
        separatePush: true,
        requireProxyVerb: true,
        defaultPermission: "none",
      } as const;
      for (const verb of ["pull", "push"] as const) {
        const reason = reasonOf(await createAccessReviewer(options)(who, ref, verb));
        expect(reason).to.contain(`allow ${who.user} to `).and.contain(`in namespace ${other}`);
        const rules: unknown = parse(reason.slice(reason.indexOf("rules: ") + "rules: ".length));
        const name = `builder-${verb}`;
        const metadata = { name, namespace: other };
        const apiVersion = "rbac.authorization.k8s.io/v1";
        await apply(
          { apiVersion, kind: "Role", metadata, rules },
          {
            apiVersion,
            kind: "RoleBinding",
            metadata,
            roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name },
            subjects: [{ kind: "ServiceAccount", name: "builder", namespace: team }],
          },
        );
        await eventually(
          async () => (await createAccessReviewer(options)(who, ref, verb)).ok,
          () => "the right has no effect",
        );
      }
      const elsewhere = { ...ref, name: "quay" };
      expect((await createAccessReviewer(options)(who, elsewhere, "pull")).ok).to.equal(false);
    });
  });

  describe("about a Secret", () => {
    const connectorOf = (secretName: string, more: Partial<Connector> = {}): Connector => ({
      namespace: team,
      name: "harbor",
      uid: "u1",
      secretName,
      address: {
        ...{ origin: "https://harbor.example.com", scheme: "https", port: 443, basePath: "" },
        ...{ hostname: "harbor.example.com", imageHost: "harbor.example.com" },
      },
      ...{ addressExtensions: [], allowedRealmHosts: [], allowedRedirectHosts: [] },
      ...more,
    });
    const read = (secrets: Connector): ReturnType<ReturnType<typeof createUpstreamSecretsReader>> =>
      createUpstreamSecretsReader({ client, installNamespace: system, now, log: () => {} })(
        secrets,
      );
    const secret = (name: string, namespace: string, rest: object): object => ({
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name, namespace },
      ...rest,
    });

    it("are the credential and the certificates", async () => {
      const [own, shared] = await Promise.all(
        ["own", "shared"].map((name) => createAuthority(name, new Date())),
      );
      await apply(
        secret("login", team, {
          type: "cpaas.io/distribution-registry-token",
          stringData: { username: "robot", password: "pässword" },
        }),
        secret("ca", team, { stringData: { "ca.crt": own?.certificate } }),
        secret("all", system, {
          metadata: {
            ...{ name: "all", namespace: system },
            labels: { "connectors.cpaas.io/ca-cert": "true" },
          },
          stringData: { "ca.crt": shared?.certificate },
        }),
      );
      const answer = await read(connectorOf("login", { caCertSecretName: "ca" }));
      expect(answer).to.deep.equal({
        ok: true,
        value: {
          credential: { username: "robot", password: "pässword" },
          caCertificates: [own, shared].map((authority) => authority?.certificate.trim()),
        },
      });
    });

    it("name one that is missing, and the right that is", async () => {
      expect(reasonOf(await read(connectorOf("late")))).to.contain(`no Secret ${team}/late`);
      const reason = String(await read(connectorOf("forbidden")).catch((error: unknown) => error));
      expect(reason).to.contain(`User "system:serviceaccount:${system}:proxy" cannot get`);
      expect(reason).to.contain(`in the namespace "${team}"`);
    });

    it("are none where we are nobody", async () => {
      const access = await accessOf("proxy");
      const stranger = createApiClient({
        access: {
          ...access,
          requestOptions: async (purpose) => ({
            ...(await access.requestOptions(purpose)),
            headers: {},
          }),
        },
      });
      // The API server takes those without a token for system:anonymous, who may do nothing.
      const refused = await createUpstreamSecretsReader({
        ...{ client: stranger, installNamespace: system, now },
        log: () => {},
      })(connectorOf("login")).catch((e: unknown) => e);
      expect(refused).to.be.instanceOf(Unavailable);
      expect(String(refused)).to.contain("system:anonymous");
      const unknown = createApiClient({
        access: {
          ...access,
          requestOptions: async (purpose) => ({
            ...(await access.requestOptions(purpose)),
            headers: { authorization: "Bearer nobody" },
          }),
        },
      });
      const error = await unknown.request({ path: connectorsPath }).catch((e: unknown) => e);
      expect(error).to.be.instanceOf(Unavailable);
    });
  });
});
