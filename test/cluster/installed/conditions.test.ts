import { expect } from "chai";
import { type Condition, readConditions } from "../../../src/controller/conditions.ts";
import { type InstalledCluster, installedCluster, until } from "./installed-cluster.ts";
import { type NodeRegistry, startNodeRegistry } from "./node-registry.ts";
import { type ConnectorSpec, connector, login, namespace } from "./objects.ts";

const team = "conditions";

interface Event {
  readonly type: string;
  readonly reason: string;
  readonly note: string;
  readonly regarding: { readonly name: string };
}

describe("the conditions of a Connector, with everything installed", function () {
  this.timeout(60_000);
  let cluster: InstalledCluster;
  let registry: NodeRegistry;
  let secure: NodeRegistry;

  before(async function () {
    this.timeout(45 * 60_000); // building a cluster cold
    cluster = await installedCluster();
    const users = { alice: "password-of-alice" };
    registry = await startNodeRegistry(cluster, "conditions", { auth: "bearer", users });
    secure = await startNodeRegistry(cluster, "conditions-tls", {
      auth: "basic",
      users,
      tls: true,
    });
    await cluster.apply(
      namespace(team),
      login({ namespace: team, name: "right" }, "alice", "password-of-alice"),
      login({ namespace: team, name: "wrong" }, "alice", "no-password-of-alice"),
      login({ namespace: team, name: "passing" }, "alice", "password-of-alice"),
      {
        apiVersion: "v1",
        kind: "Secret",
        type: "Opaque",
        stringData: { token: "1" },
        metadata: { namespace: team, name: "empty" },
      },
    );
  });

  const put = (name: string, spec: ConnectorSpec): Promise<string> =>
    cluster.apply(connector({ namespace: team, name }, spec));

  /** The conditions of a Connector once one of them is as wanted. */
  const shows = (name: string, type: string, wanted: string): Promise<readonly Condition[]> => {
    let found: readonly Condition[] = [];
    return until(async () => {
      found = readConditions(await cluster.get("connector", name, team));
      const one = found.find((condition) => condition.type === type);
      return `${one?.status} ${one?.reason}` === wanted && found;
    }, `${type} of ${name} is not ${wanted}`);
  };
  const reasons = (conditions: readonly Condition[]): Readonly<Record<string, string>> =>
    Object.fromEntries(conditions.map(({ type, status, reason }) => [type, `${status} ${reason}`]));
  const message = (conditions: readonly Condition[], type: string): string =>
    conditions.find((condition) => condition.type === type)?.message ?? "";
  const events = async (name: string): Promise<readonly string[]> => {
    const all = await cluster.list<Event>("events.events.k8s.io", team);
    return all
      .filter(({ regarding }) => regarding.name === name)
      .map(({ type, reason }) => `${type} ${reason}`);
  };

  it("are all True with a good Secret, and the table of kubectl shows it", async () => {
    await put("good", { address: registry.url, secret: "right" });
    const conditions = await shows("good", "Ready", "True Ready");
    expect(reasons(conditions)).to.deep.equal({
      ConnectorClassReady: "True ConnectorClassFound",
      SecretReady: "True SecretFound",
      LivenessReady: "True Answers",
      AuthReady: "True Authenticated",
      ProxyServiceReady: "True ServiceFound",
      CACertReady: "True NoCACert",
      Ready: "True Ready",
    });
    const table = await cluster.kubectl(["get", "connectors", "good", "-n", team]);
    expect(table).to.match(/^NAME +CLASS +ADDRESS +READY +REASON +AGE$/m);
    expect(table).to.match(/^good +oci +http:\S+ +True +Ready +\S+$/m);
    const found = await cluster.get("connector", "good", team);
    expect(found?.status.observedGeneration).to.equal(found?.metadata.generation);
    expect(found?.status.proxy.httpAddress.url).to.equal(
      `http://c-good.${team}.svc.cluster.local/namespaces/${team}/connectors/good`,
    );
    const service = await cluster.get("service", "c-good", team);
    expect(service?.spec).to.include({
      type: "ExternalName",
      externalName: "connectors-proxy.connectors-system.svc.cluster.local",
    });
    expect(await events("good")).to.include("Normal Ready");
  });

  it("say of a wrong password that the login fails, and it is tried once", async () => {
    await put("wrong", { address: registry.url, secret: "wrong" });
    const conditions = await shows("wrong", "Ready", "False AuthenticationFailed");
    expect(reasons(conditions)).to.include({
      SecretReady: "True SecretFound",
      LivenessReady: "True Answers",
      AuthReady: "False AuthenticationFailed",
    });
    expect(message(conditions, "AuthReady")).to.contain("attempts so far: 1");
    expect(await events("wrong")).to.include("Warning AuthenticationFailed");
  });

  it("take up a corrected password at once", async () => {
    await put("wrong", { address: registry.url, secret: "right" });
    await shows("wrong", "Ready", "True Ready");
  });

  it("name a Secret that is missing, and are True as soon as it is there", async () => {
    await put("missing", { address: registry.url, secret: "later" });
    const conditions = await shows("missing", "Ready", "False SecretNotFound");
    expect(reasons(conditions)).to.include({
      SecretReady: "False SecretNotFound",
      LivenessReady: "Unknown WaitingForSecret",
    });
    expect(message(conditions, "SecretReady")).to.contain(`Secret ${team}/later: create it`);
    await cluster.apply(login({ namespace: team, name: "later" }, "alice", "password-of-alice"));
    await shows("missing", "Ready", "True Ready");
  });

  it("say of a Secret of another kind what it lacks", async () => {
    await put("empty", { address: registry.url, secret: "empty" });
    const conditions = await shows("empty", "Ready", "False SecretInvalid");
    expect(message(conditions, "SecretReady")).to.contain(`Secret ${team}/empty: `);
  });

  it("follow a Secret that is deleted, and made again", async function () {
    this.timeout(8 * 60_000); // nobody watches Secrets: it shows when the registry is asked next
    await put("passing", { address: registry.url, secret: "passing" });
    await shows("passing", "Ready", "True Ready");
    await cluster.kubectl(["delete", "secret", "passing", "-n", team]);
    // What makes it look: a change of the Connector.
    await cluster.kubectl(["annotate", "connector", "passing", "-n", team, "looked=1"]);
    await shows("passing", "Ready", "False SecretNotFound");
    expect(await events("passing")).to.include("Warning SecretNotFound");
    await cluster.apply(login({ namespace: team, name: "passing" }, "alice", "password-of-alice"));
    await shows("passing", "Ready", "True Ready");
  });

  it("allow a registry without any login", async () => {
    const open = await startNodeRegistry(cluster, "conditions-open", { auth: "none" });
    await put("anonymous", { address: open.url });
    const conditions = await shows("anonymous", "Ready", "True Ready");
    expect(reasons(conditions)).to.include({
      SecretReady: "True SecretOptional",
      AuthReady: "True NonAuthProbe",
    });
  });

  it("refuse another class, and make nothing for it", async () => {
    await cluster.apply({
      apiVersion: "connectors.alauda.io/v1alpha1",
      kind: "Connector",
      metadata: { namespace: team, name: "git" },
      spec: { connectorClassName: "git", address: "https://git.example.com" },
    });
    await shows("git", "Ready", "False ConnectorClassNotFound");
    expect(await cluster.get("service", "c-git", team)).to.equal(undefined);
  });

  it("say of an address at which nobody is that it can't be reached", async () => {
    await put("nobody", { address: "http://10.250.0.1:9", secret: "right" });
    const conditions = await shows("nobody", "Ready", "False ConnectionFailed");
    expect(message(conditions, "LivenessReady")).to.contain("http://10.250.0.1:9");
    await put("nobody", { address: "https://nobody.example.com", secret: "right" });
    await until(async () => {
      const now = readConditions(await cluster.get("connector", "nobody", team));
      return message(now, "LivenessReady").includes("nobody.example.com");
    }, "the new address does not show");
  });

  it("want the CA of a registry's certificate, and trust the one that is named", async () => {
    await put("secure", { address: secure.url, secret: "right" });
    await shows("secure", "Ready", "False CertificateInvalid");
    await cluster.apply({
      apiVersion: "v1",
      kind: "Secret",
      stringData: { "ca.crt": secure.ca },
      metadata: { namespace: team, name: "ca" },
    });
    await put("secure", { address: secure.url, secret: "right", caCertSecretRef: { name: "ca" } });
    const conditions = await shows("secure", "Ready", "True Ready");
    expect(reasons(conditions)).to.include({ CACertReady: "True Valid" });
  });

  it("never overwrite a Service of somebody else, and take the name once it is free", async () => {
    await cluster.apply({
      apiVersion: "v1",
      kind: "Service",
      metadata: { namespace: team, name: "c-taken" },
      spec: { ports: [{ port: 80 }] },
    });
    await put("taken", { address: registry.url, secret: "right" });
    await shows("taken", "Ready", "False ServiceConflict");
    const service = await cluster.get("service", "c-taken", team);
    expect(service?.spec.type).to.equal("ClusterIP");
    await cluster.kubectl(["delete", "service", "c-taken", "-n", team]);
    await shows("taken", "Ready", "True Ready");
  });

  it("heal a Service that is deleted, and clean up after a Connector", async function () {
    this.timeout(120_000);
    await cluster.kubectl(["delete", "service", "c-good", "-n", team]);
    await until(() => cluster.get("service", "c-good", team), "the Service does not come back");
    await cluster.kubectl(["delete", "connector", "good", "-n", team]);
    await until(
      async () => (await cluster.get("service", "c-good", team)) === undefined,
      "the Service of a deleted Connector stays",
      90,
    );
  });

  it("end with the Connectors: the proxy reads no Secret of the namespace any more", async () => {
    const proxy = `--as=system:serviceaccount:connectors-system:connectors-node`;
    const may = async (): Promise<string> => {
      const ask = ["auth", "can-i", "get", "secret/right", "-n", team, proxy];
      return (await cluster.kubectl(ask).catch(() => "no")).trim();
    };
    expect(await may()).to.equal("yes");
    await cluster.kubectl(["delete", "connectors", "--all", "-n", team]);
    await until(async () => (await may()) === "no", "the proxy may still read the Secret");
  });
});
