/**
 * The quick start of Alauda DevOps Connectors, as its documentation has it: a Secret, a Connector, and a Pod of the
 * ServiceAccount `default` that mounts the Connector, without any Role. csi and proxy are what they are in a cluster,
 * over an API server that knows no Role; test/cluster/installed has the same with Pods.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { parse } from "yaml";
import type { DefaultPermission } from "../../src/connector/platform.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { connectorsPath, createConnectorFinder } from "../../src/kube/find-connector.ts";
import { createAccessReviewer } from "../../src/kube/may-use.ts";
import type { KubeObject } from "../../src/kube/object-store.ts";
import { createUpstreamSecretsReader } from "../../src/kube/read-upstream-secrets.ts";
import { createTokenReviewer } from "../../src/kube/verify-token.ts";
import { createWatchedCache } from "../../src/kube/watched-cache.ts";
import {
  audience,
  podInfo,
  publishRequest,
  requireMounts,
  startDriver,
} from "../csi/csi-driver.ts";
import {
  type FakeApiServer,
  type FakeRequest,
  startFakeApiServer,
} from "../kube/fake-api-server.ts";
import { startTestProxy, type TestProxy } from "../proxy/test-proxy.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { plainRequest } from "../support/plain-request.ts";

const namespace = "team-a";
const account = `system:serviceaccount:${namespace}:default`;
const token = [{}, { aud: [audience], exp: 4_000_000_000 }, "signature"]
  .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
  .join(".");

describe("the quick start of Alauda DevOps Connectors", function () {
  this.timeout(20_000);
  const resources = cleanup();
  let server: FakeApiServer;
  let registry: FakeRegistry;

  before(requireMounts);
  beforeEach(async () => {
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    addImage(registry.repository("app"), "1");
    server = resources.add(await startFakeApiServer());
    server.intercept = reviewed;
    const data = { username: "alice", password: "secret-of-alice" };
    server.put("secrets", {
      metadata: { namespace, name: "harbor" },
      type: "kubernetes.io/basic-auth",
      data: Object.fromEntries(
        Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString("base64")]),
      ),
    });
    putConnector();
  });
  afterEach(resources.stop);

  const putConnector = (params: readonly object[] = []): void =>
    server.put("connectors", {
      apiVersion: "connectors.alauda.io/v1alpha1",
      kind: "Connector",
      metadata: { namespace, name: "harbor" },
      spec: {
        connectorClassName: "harbor",
        address: registry.url,
        auth: { name: "basic-auth", secretRef: { name: "harbor", namespace } },
        params,
      },
    });

  /** Nobody has a right, and the token is that of the Pod. */
  function reviewed({ path }: FakeRequest) {
    if (path.endsWith("/subjectaccessreviews")) {
      return { status: 201, body: { status: { allowed: false } } };
    }
    if (!path.endsWith("/tokenreviews")) return undefined;
    const user = { username: account, groups: ["system:authenticated"] };
    return { status: 201, body: { status: { authenticated: true, audiences: [audience], user } } };
  }

  interface Cluster {
    /** Mounts the volume of the quick start's Pod. @returns the token in it */
    readonly mount: () => Promise<string>;
    /** The message of the FailedMount event. */
    readonly refusal: () => Promise<string>;
    readonly proxy: TestProxy;
  }

  async function start(defaultPermission: DefaultPermission): Promise<Cluster> {
    const client = createApiClient({ access: server.access });
    const abort = new AbortController();
    resources.defer(async () => abort.abort());
    const connectors = createWatchedCache<KubeObject>({
      client,
      path: connectorsPath,
      log: () => undefined,
      signal: abort.signal,
      random: Math.random,
    });
    await connectors.synced;
    const now = Date.now;
    const platform = {
      findConnector: createConnectorFinder(connectors),
      mayUse: createAccessReviewer({
        client,
        now,
        separatePush: false,
        requireProxyVerb: false,
        defaultPermission,
      }),
    };
    const driver = await startDriver(platform);
    resources.defer(driver.end);
    const proxy = resources.add(
      await startTestProxy({
        ...platform,
        verifyToken: createTokenReviewer({ client, audience, now }),
        readUpstreamSecrets: createUpstreamSecretsReader({
          client,
          installNamespace: "connectors-system",
          now,
          log: () => undefined,
        }),
      }),
    );
    const target = join(driver.folder, "mount");
    const request = publishRequest(target, {
      token,
      volumeContext: {
        ...podInfo,
        "csi.storage.k8s.io/serviceAccount.name": "default",
        "connector.name": "harbor",
      },
    });
    return {
      proxy,
      async mount() {
        await driver.publish(request);
        return readFile(join(target, "context.token"), "utf8");
      },
      refusal: async () => (await driver.failure(driver.publish(request))).details,
    };
  }

  const ask = async ({ proxy }: Cluster, method: string, path: string): Promise<string> => {
    const url = `http://${proxy.http}/v2/namespaces/${namespace}/connectors/harbor/app/${path}`;
    const headers = { authorization: `Bearer ${token}` };
    const { status, body } = await plainRequest(url, { method, headers });
    return `${status} ${status < 400 ? "" : body.toString()}`;
  };
  const pull = (cluster: Cluster): Promise<string> => ask(cluster, "GET", "manifests/1");
  const push = (cluster: Cluster): Promise<string> => ask(cluster, "POST", "blobs/uploads/");

  it("waits by default, and says which Role is missing", async () => {
    const cluster = await start("none");
    const message = await cluster.refusal();
    expect(message).to.contain(`allow ${account} to get connectors`);
    const [, rules = ""] = /to a Role with rules: (\[.*\])/.exec(message) ?? [];
    expect(parse(rules)).to.deep.equal([
      {
        apiGroups: ["connectors.alauda.io"],
        resources: ["connectors"],
        resourceNames: ["harbor"],
        verbs: ["get"],
      },
    ]);
    for (const answer of [await pull(cluster), await push(cluster)]) {
      expect(answer).to.match(/^403 .*to a Role with rules/);
    }
    expect(registry.requests).to.deep.equal([]);
  });

  it("works without a Role where ServiceAccounts of the namespace need none", async () => {
    const cluster = await start("namespace");
    expect(await cluster.mount()).to.equal(token);
    expect(await pull(cluster)).to.equal("200 ");
    expect(await push(cluster)).to.equal("202 ");
  });

  it("keeps to the rules of its Connector all the same", async () => {
    putConnector([{ name: "rules", value: [{ verbs: ["pull"], repositories: ["app"] }] }]);
    const cluster = await start("namespace");
    await cluster.mount();
    expect(await pull(cluster)).to.equal("200 ");
    expect(await push(cluster)).to.match(/^403 .*rules/);
  });

  it("opens nothing for a Pod of another namespace", async () => {
    const cluster = await start("namespace");
    const user = { username: "system:serviceaccount:team-b:default", groups: [] };
    const status = { authenticated: true, audiences: [audience], user };
    server.intercept = (request) =>
      request.path.endsWith("/tokenreviews")
        ? { status: 201, body: { status } }
        : reviewed(request);
    expect(await pull(cluster)).to.match(/^403 .*allow system:serviceaccount:team-b:default/);
  });
});
