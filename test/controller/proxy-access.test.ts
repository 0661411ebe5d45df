import { expect } from "chai";
import { property } from "../../src/connector/document.ts";
import {
  createProxyAccessGranter,
  type GrantProxyAccess,
} from "../../src/controller/proxy-access.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import type { KubeObject } from "../../src/kube/object-store.ts";
import { type FakeApiServer, startFakeApiServer, statusOf } from "../kube/fake-api-server.ts";
import { cleanup } from "../support/cleanup.ts";
import { connectorObject } from "./sample-connector.ts";

const name = "connectors-proxy-secrets";

describe("createProxyAccessGranter()", () => {
  const resources = cleanup();
  let server: FakeApiServer;
  let connectors: KubeObject[];
  let give: GrantProxyAccess;

  beforeEach(async () => {
    server = resources.add(await startFakeApiServer());
    connectors = [];
    give = createProxyAccessGranter({
      client: createApiClient({ access: server.access }),
      connectors: { list: () => connectors },
      roles: { get: (of, namespace) => server.get("roles", of, namespace) },
      roleBindings: { get: (of, namespace) => server.get("rolebindings", of, namespace) },
      proxy: { namespace: "connectors-system", name: "connectors-proxy" },
    });
  });
  afterEach(resources.stop);

  const secrets = (login: string | undefined, ca?: string): KubeObject =>
    connectorObject({
      ...(login === undefined ? {} : { auth: { secretRef: { name: login } } }),
      ...(ca === undefined ? {} : { caCertSecretRef: { name: ca } }),
    });
  const role = (): KubeObject | undefined => server.get("roles", name, "team-a");
  const binding = (): KubeObject | undefined => server.get("rolebindings", name, "team-a");
  const readable = (): unknown => {
    const rules = property(role(), "rules");
    return Array.isArray(rules) ? property(rules[0], "resourceNames") : undefined;
  };

  it("lets the proxy read the Secrets of all connectors, each by its name", async () => {
    connectors = [secrets("z", "ca"), secrets("a", "ca"), secrets(undefined), secrets("z")];
    expect(await give("team-a")).to.deep.equal({ ok: true, value: undefined });
    expect(role()).to.deep.include({
      rules: [
        {
          apiGroups: [""],
          resources: ["secrets"],
          resourceNames: ["a", "ca", "z"],
          verbs: ["get"],
        },
      ],
    });
    expect(binding()).to.deep.include({
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name },
      subjects: [
        { kind: "ServiceAccount", namespace: "connectors-system", name: "connectors-proxy" },
      ],
    });
  });

  it("lets the proxy read the Secret with the client certificate", async () => {
    const params = [{ name: "clientCertSecret", value: "client" }];
    connectors = [connectorObject({ params }), secrets("a")];
    await give("team-a");
    expect(readable()).to.deep.equal(["a", "client"]);
  });

  it("asks nothing where nothing has changed, also in another order", async () => {
    connectors = [secrets("z"), secrets("a")];
    await give("team-a");
    const { length } = server.requests;
    connectors.reverse();
    await give("team-a");
    expect(server.requests).to.have.length(length);
  });

  it("takes back what nobody refers to any more, and in the end both objects", async () => {
    connectors = [secrets("z"), secrets("a")];
    await give("team-a");
    connectors.pop();
    await give("team-a");
    expect(readable()).to.deep.equal(["z"]);
    connectors = [
      connectorObject({ connectorClassName: "git", auth: { secretRef: { name: "z" } } }),
    ];
    await give("team-a");
    expect([role(), binding()]).to.deep.equal([undefined, undefined]);
    const { length } = server.requests;
    await give("team-a");
    expect(server.requests).to.have.length(length);
  });

  it("puts back what somebody has changed or deleted", async () => {
    connectors = [secrets("a")];
    await give("team-a");
    server.put("roles", { ...(role() as KubeObject), rules: [] });
    server.remove("rolebindings", name, "team-a");
    await give("team-a");
    expect(readable()).to.deep.equal(["a"]);
    expect(binding()).not.to.equal(undefined);
  });

  it("leaves a Role of that name alone that is not ours, and says so", async () => {
    connectors = [secrets("a")];
    server.put("roles", { metadata: { name, namespace: "team-a" }, rules: ["foreign"] });
    const answer = await give("team-a");
    expect(answer.ok ? "" : answer.reason)
      .to.contain(`Role team-a/${name}`)
      .and.contain("remove it");
    expect(role()).to.deep.include({ rules: ["foreign"] });
  });

  it("says why the API server refuses it, and fails where it is away or somebody was faster", async () => {
    connectors = [secrets("a")];
    const answer = (status: number) => {
      server.intercept = () => ({ status, body: statusOf(status, "attempting to grant") });
      return give("team-a").catch((error: unknown) => String(error));
    };
    const refused = await answer(403);
    expect(refused).to.deep.equal({ ok: false, reason: "attempting to grant" });
    expect(await answer(503)).to.match(/^Unavailable/);
  });
});
