import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { expect } from "chai";
import type { Connector } from "../../src/connector/connector.ts";
import { property } from "../../src/connector/document.ts";
import type { UpstreamSecrets } from "../../src/connector/platform.ts";
import { type Condition, readConditions } from "../../src/controller/conditions.ts";
import {
  type Controller,
  type ControllerOptions,
  startController,
} from "../../src/controller/controller.ts";
import { systemClock } from "../../src/controller/work-queue.ts";
import type { ApiAccess } from "../../src/kube/api-access.ts";
import { createApiClient } from "../../src/kube/api-client.ts";
import { createLog } from "../../src/log.ts";
import type { ProbeResult } from "../../src/upstream/probe.ts";
import { noIdentities } from "../controller/sample-connector.ts";
import { cleanup } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { accessAs } from "./account-access.ts";
import { type Cluster, startCluster } from "./cluster.ts";
import { startControllers } from "./control-plane.ts";
import { controllerRights } from "./controller-rights.ts";
import { buildKubernetes } from "./kubernetes-programs.ts";
import { dyingWithParent } from "./namespaces.ts";

const passwords = ["correct-horse-1", "battery-staple-2"] as const;
const [right, wrong] = passwords;
const keysSecret = "connectors-proxy-keys";
const caConfigMap = "connectors-proxy-ca";
const crd = join(import.meta.dirname, "../../daemonset/crd.yaml");

describe("the controller, on a real API server", function () {
  this.timeout(120_000);
  const resources = cleanup();
  const id = randomBytes(4).toString("hex");
  const system = `c-system-${id}`;
  let cluster: Cluster;
  let team: string;
  let teams = 0;
  let controller: Controller;
  const logged: string[] = [];
  const log = createLog((line) => logged.push(line), Date.now);
  const logins: string[] = [];

  const apply = (...items: readonly object[]): Promise<string> =>
    cluster.kubectl(
      ["apply", "-f", "-"],
      JSON.stringify({ apiVersion: "v1", kind: "List", items }),
    );
  const put = (spec: object = {}, name = "harbor"): Promise<string> =>
    apply({
      apiVersion: "connectors.alauda.io/v1alpha1",
      kind: "Connector",
      metadata: { name, namespace: team },
      spec: { connectorClassName: "oci", address: "https://harbor.example.com", ...spec },
    });
  const withSecret = { auth: { name: "tokenAuth", secretRef: { name: "login" } } };
  const putLogin = (password: string, type = "kubernetes.io/basic-auth"): Promise<string> =>
    apply({
      apiVersion: "v1",
      kind: "Secret",
      type,
      metadata: { name: "login", namespace: team },
      stringData: { username: "robot", password },
    });
  /** An object as the API server has it; undefined where there is none. */
  const get = async (kind: string, name: string, namespace = team): Promise<unknown> => {
    const args = ["get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "json"];
    const text = await cluster.kubectl(args);
    return text === "" ? undefined : JSON.parse(text);
  };
  const until = (holds: () => Promise<boolean>, what: string, timeout = 30_000): Promise<unknown> =>
    eventually(holds, () => `${what}\n${logged.slice(-10).join("")}`, timeout);
  /** Kubernetes looks for new kinds of owners twice a minute only. */
  const collected = (kind: string, name: string): Promise<unknown> =>
    until(
      async () => (await get(kind, name)) === undefined,
      `there still is the ${kind} ${name}`,
      90_000,
    );
  /** Waits until a condition has that status and reason. */
  const shows = async (type: string, expected: string, name = "harbor"): Promise<Condition> => {
    let found: Condition | undefined;
    await until(async () => {
      const conditions = readConditions(await get("connector", name));
      found = conditions.find((one) => one.type === type);
      return `${found?.status} ${found?.reason}` === expected;
    }, `${type} of ${name} is not ${expected}`);
    return found as Condition;
  };
  const isReady = (name?: string): Promise<Condition> => shows("Ready", "True Ready", name);

  const probe = async (
    { address }: Connector,
    { credential }: UpstreamSecrets,
  ): Promise<ProbeResult> => {
    if (credential !== undefined) logins.push(credential.password);
    const accepted = { ok: true, reason: "LoggedIn", message: "accepted" } as const;
    const refused = { ok: false, reason: "AuthenticationFailed", message: "refused" } as const;
    const auth = credential?.password === wrong ? refused : accepted;
    return address.hostname === "down.example.com"
      ? { liveness: { ok: false, reason: "ConnectionFailed", message: "nobody there" }, auth }
      : { liveness: { ok: true, reason: "Reachable", message: "it answers" }, auth };
  };
  const start = async (
    account: string,
    more: Partial<ControllerOptions> = {},
  ): Promise<Controller> =>
    resources.add(
      startController({
        client: createApiClient({ access: await accessOf(account) }),
        probe,
        identityLogins: noIdentities,
        names: {
          installNamespace: system,
          clusterDomain: "cluster.local",
          proxyService: "connectors-proxy",
          proxyServiceAccount: "connectors-proxy",
          controllerServiceAccount: account,
          secretReaderClusterRole: `c-secret-reader-${id}`,
        },
        instance: "test",
        clock: systemClock,
        random: Math.random,
        log,
        timing: { periodMs: 2_000, initialRetryMs: 200, maxRetryMs: 1_000, overlapMs: 3_000 },
        ...more,
      }),
    );
  const accessOf = (name: string): Promise<ApiAccess> =>
    accessAs(cluster, { namespace: system, name }, resources.add(makeTempFolder("account")).path);
  const rights = (serviceAccount: string, readsAllSecrets: boolean): readonly object[] =>
    controllerRights({
      serviceAccount,
      readsAllSecrets,
      namespace: system,
      clusterName: `c-${serviceAccount}-${id}`,
      secretReader: `c-secret-reader-${id}`,
    });

  /** A cluster of our own goes as a whole. */
  const leaveNothing = (kind: string, ...names: readonly string[]): void => {
    if (!cluster.own)
      resources.defer(() => cluster.kubectl(["delete", kind, ...names, "--wait=false"]));
  };

  before(async function () {
    this.timeout(30 * 60_000); // building the API server cold
    cluster = resources.add(await startCluster({ nodes: 0 }));
    if (cluster.own) {
      // It removes what has lost its owner.
      const place = { folder: cluster.folder, prefix: dyingWithParent };
      await startControllers(place, await buildKubernetes(), cluster);
    }
    await cluster.kubectl(["apply", "--server-side", "-f", crd]);
    await cluster.kubectl(["wait", "--for=condition=Established", "crd", "--all"]);
    await cluster.kubectl(["create", "namespace", system]);
    const clusterNames = ["controller", "strict"].map((account) => `c-${account}-${id}`);
    leaveNothing("namespace", system);
    leaveNothing("clusterrole", ...clusterNames, `c-secret-reader-${id}`);
    leaveNothing("clusterrolebinding", ...clusterNames, `c-controller-${id}-secrets`);
    await apply(...rights("controller", true), ...rights("strict", false));
    controller = await start("controller");
    await until(async () => controller.ready(), "it is not ready");
  });
  after(resources.stop);

  beforeEach(async () => {
    teams += 1;
    team = `c-team-${teams}-${id}`;
    const namespace = team;
    await cluster.kubectl(["create", "namespace", namespace]);
    leaveNothing("namespace", namespace);
  });

  it("takes a connector through its life", async () => {
    await put(withSecret);
    const { message } = await shows("Ready", "False SecretNotFound");
    expect(message).to.contain(`there is no Secret ${team}/login`);
    await putLogin(right, "Opaque");
    await shows("Ready", "False SecretInvalid");
    await cluster.kubectl(["delete", "secret", "login", "-n", team]);
    await putLogin(wrong);
    await shows("Ready", "False AuthenticationFailed");
    expect(await get("connector", "harbor")).to.have.nested.property("status.authProbe.count", 1);
    await putLogin(right);
    await isReady();
    expect(await get("connector", "harbor")).not.to.have.nested.property("status.authProbe");
    expect(logins.filter((password) => password === wrong)).to.have.length(1);
    await put({ ...withSecret, address: "https://down.example.com" });
    await shows("Ready", "False ConnectionFailed");
    await shows("AuthReady", "Unknown WaitingForLiveness");
    await put({ connectorClassName: "git" });
    await shows("Ready", "False ConnectorClassNotFound");
    await put();
    await isReady();
    await shows("SecretReady", "True SecretOptional");

    const table = await cluster.kubectl(["get", "connectors", "-n", team, "--no-headers"]);
    expect(table.split(/\s+/).slice(0, 5)).to.deep.equal([
      ...["harbor", "oci", "https://harbor.example.com", "True", "Ready"],
    ]);
    const description = await cluster.kubectl(["describe", "connector", "harbor", "-n", team]);
    for (const reason of [
      ...["SecretNotFound", "SecretInvalid", "AuthenticationFailed", "ConnectionFailed"],
      "ConnectorClassNotFound",
    ]) {
      expect(description).to.match(new RegExp(`Warning +${reason} .*connectors.alauda.io`));
    }
    expect(description).to.match(/Normal +Ready .*x2 over/);
  });

  it("makes the Service and the Role, mends them, and leaves nothing behind", async () => {
    await put(withSecret);
    await putLogin(right);
    await isReady();
    const service = await get("service", "c-harbor");
    expect(service).to.have.nested.property(
      "spec.externalName",
      `connectors-proxy.${system}.svc.cluster.local`,
    );
    const can = [
      "auth",
      "can-i",
      "get",
      "-n",
      team,
      `--as=system:serviceaccount:${system}:connectors-proxy`,
    ];
    const mayRead = (secret: string): Promise<string> =>
      cluster.kubectl([...can, `secret/${secret}`]).then(
        (text) => text.trim(),
        () => "no",
      );
    expect(await Promise.all(["login", "other"].map(mayRead))).to.deep.equal(["yes", "no"]);

    const owned = ["service/c-harbor", "role/connectors-proxy-secrets"];
    await cluster.kubectl(["delete", ...owned, "rolebinding/connectors-proxy-secrets", "-n", team]);
    const isThere = (kind: string, name: string) => async () =>
      (await get(kind, name)) !== undefined;
    await until(isThere("service", "c-harbor"), "the Service is still away");
    await until(isThere("role", "connectors-proxy-secrets"), "the Role is still away");
    await until(async () => (await mayRead("login")) === "yes", "the proxy has no access again");

    await cluster.kubectl(["delete", "connector", "harbor", "-n", team]);
    for (const [kind, name] of [
      ["service", "c-harbor"],
      ["role", "connectors-proxy-secrets"],
      ["rolebinding", "connectors-proxy-secrets"],
    ] as const) {
      await collected(kind, name);
    }
  });

  it("leaves a foreign Service alone, until it is gone", async () => {
    await cluster.kubectl(["create", "service", "clusterip", "c-harbor", "--tcp=80", "-n", team]);
    await put();
    await shows("Ready", "False ServiceConflict");
    const service = await get("service", "c-harbor");
    expect(service).to.have.nested.property("spec.type", "ClusterIP");
    expect(service).not.to.have.nested.property("metadata.ownerReferences");
    await cluster.kubectl(["delete", "service", "c-harbor", "-n", team]);
    await isReady();
  });

  it("agrees with another replica, and writes nothing while nothing changes", async () => {
    const second = await start("controller");
    await until(async () => second.ready(), "the other replica is not ready");
    await putLogin(right);
    await Promise.all([1, 2, 3].map((number) => put(withSecret, `c${number}`)));
    await Promise.all([1, 2, 3].map((number) => isReady(`c${number}`)));
    const versions = async (): Promise<string> =>
      cluster.kubectl([
        ...["get", "connectors,services,roles,rolebindings,events", "-n", team],
        ...["-o", "jsonpath={.items[*].metadata.resourceVersion}"],
      ]);
    const before = await versions();
    await new Promise((resolve) => setTimeout(resolve, 5_000)); // over two periods
    expect(await versions()).to.equal(before);
    await second.stop();
  });

  it("says which command lets it read a Secret, where it may not read them all", async () => {
    // Two controllers with different rights would not agree.
    await controller.stop();
    const strict = await start("strict");
    await until(async () => strict.ready(), "the strict one is not ready");
    await put(withSecret);
    await putLogin(right);
    const { message } = await shows("SecretReady", "False SecretForbidden");
    expect(await get("role", "connectors-proxy-secrets")).to.equal(undefined);
    const command = /`kubectl (.*)`/.exec(message)?.[1] ?? expect.fail(message);
    await cluster.kubectl(command.split(" "));
    await isReady();
    expect(await get("role", "connectors-proxy-secrets")).not.to.equal(undefined);
    await strict.stop();
    controller = await start("controller");
  });

  it("makes the proxies' keys once, and rotates them", async () => {
    const dataOf = async (): Promise<Readonly<Record<string, string>>> =>
      property(await get("secret", keysSecret, system), "data") as Record<string, string>;
    const bundle = async (): Promise<string> =>
      String(property(property(await get("configmap", caConfigMap, system), "data"), "ca.crt"));
    const certificate = async (key: string): Promise<string> =>
      Buffer.from((await dataOf())[key] ?? "", "base64").toString();
    await until(async () => (await bundle()) !== "undefined", "there is no ConfigMap");
    const old = await certificate("ca.crt");
    expect(await bundle()).to.equal(old);
    const second = await start("controller");
    const annotation = `connectors.alauda.io/rotate=${id}`;
    await cluster.kubectl(["annotate", "secret", keysSecret, annotation, "-n", system]);
    await until(async () => "next-ca.crt" in (await dataOf()), "there is no next authority");
    const next = await certificate("next-ca.crt");
    await until(async () => (await bundle()) === old + next, "the next is not published");
    expect(await certificate("ca.crt")).to.equal(old);
    await until(async () => (await certificate("ca.crt")) === next, "the next does not sign");
    await until(async () => (await bundle()) === next + old, "the old is not trusted any more");
    await until(async () => (await bundle()) === next, "the old is still trusted");
    expect(Object.keys(await dataOf()).sort()).to.deep.equal(["ca.crt", "ca.key", "seal.key"]);
    await cluster.kubectl(["delete", "secret", keysSecret, "-n", system]);
    await until(async () => !["", next].includes(await certificate("ca.crt")), "there are no keys");
    await until(async () => (await bundle()) === (await certificate("ca.crt")), "nor is their CA");
    await second.stop();
  });

  it("makes one set of keys where two replicas begin at once", async () => {
    await controller.stop();
    await cluster.kubectl(["delete", `secret/${keysSecret}`, "-n", system]);
    await cluster.kubectl(["delete", `configmap/${caConfigMap}`, "-n", system]);
    const made = (): number =>
      logged.filter((line) => line.includes("created the proxies' keys")).length;
    const before = made();
    const both = await Promise.all([start("controller"), start("controller")]);
    await until(async () => (await get("configmap", caConfigMap, system)) !== undefined, "no CA");
    expect(made()).to.equal(before + 1);
    await both[1]?.stop();
    controller = both[0] as Controller;
  });

  it("goes on after the API server and etcd were killed", async function () {
    if (!cluster.own) this.skip();
    await put(withSecret);
    await putLogin(right);
    await isReady();
    for (const program of ["apiserver", "etcd"]) {
      await cluster.restart(program, { signal: "SIGKILL" });
      await eventually(
        () => cluster.kubectl(["delete", "service", "c-harbor", "-n", team]).catch(() => undefined),
        () => "the API server is still away",
        60_000,
      );
      await until(
        async () => (await get("service", "c-harbor")) !== undefined,
        `the Service does not come back after ${program}`,
      );
    }
  });

  it("outlives its definition", async function () {
    if (!cluster.own) this.skip();
    await put(withSecret);
    await putLogin(right);
    await isReady();
    await cluster.kubectl(["delete", "-f", crd]);
    await collected("service", "c-harbor");
    await cluster.kubectl(["apply", "--server-side", "-f", crd]);
    await cluster.kubectl(["wait", "--for=condition=Established", "crd", "--all"]);
    await eventually(
      () => put(withSecret).catch(() => undefined),
      () => "no Connector can be made",
      30_000,
    );
    await isReady();
  });

  it("shows no password anywhere", async () => {
    const kinds = "connectors,events,services,roles,rolebindings,configmaps";
    const everything = await cluster.kubectl(["get", kinds, "-A", "-o", "yaml"]);
    for (const password of passwords) {
      expect(everything).not.to.contain(password);
      expect(everything).not.to.contain(Buffer.from(password).toString("base64"));
      expect(logged.join("")).not.to.contain(password);
    }
    expect(logged.filter((line) => line.includes('"level":"error"'))).to.deep.equal([]);
  });
});
