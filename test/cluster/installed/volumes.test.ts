import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { decodeJwt, decodeProtectedHeader, importPKCS8, SignJWT } from "jose";
import { parse } from "yaml";
import { type InstalledCluster, installedCluster, until } from "./installed-cluster.ts";
import { type NodeRegistry, startNodeRegistry } from "./node-registry.ts";
import { connector, login, namespace, pod, restricted, right } from "./objects.ts";

const team = "volumes";
const other = "volumes-other";
const users = { alice: "password-of-alice", bob: "password-of-bob" };
const files = "/run/connectors";

interface Event {
  readonly type: string;
  readonly reason: string;
  readonly message: string;
}

describe("volumes in Pods", function () {
  this.timeout(120_000);
  let cluster: InstalledCluster;
  let registry: NodeRegistry;
  /** It takes a minute, in which the other tests go on. */
  let deletion: Promise<void>;

  before(async function () {
    this.timeout(45 * 60_000); // building a cluster cold
    cluster = await installedCluster();
    registry = await startNodeRegistry(cluster, "volumes", { auth: "bearer", users });
    const { url: address } = registry;
    await cluster.apply(namespace(team, restricted), namespace(other, restricted));
    await cluster.apply(
      login({ namespace: team, name: "alice" }, "alice", users.alice),
      connector({ namespace: team, name: "harbor" }, { address, secret: "alice" }),
      connector({ namespace: team, name: "second" }, { address, secret: "alice" }),
      connector({ namespace: "kube-public", name: "volumes-public" }, { address, secret: "alice" }),
      login({ namespace: "kube-public", name: "alice" }, "alice", users.alice),
      ...right({ namespace: team, name: "use" }, { connectors: ["harbor", "second"], of: team }),
    );
    for (const name of ["harbor", "second"]) {
      await cluster.wait("condition=Ready", `connector/${name}`, team);
    }
    await start("reader", {
      volume: { connectors: "harbor", "configuration.names": "docker-config,buildkitd" },
      security: { fsGroup: 4711 },
    });
    await ready("reader");
    deletion = refusedAfterDeletion();
    deletion.catch(() => undefined); // a test of its own tells
  });
  after(async () => {
    await cluster?.kubectl(["delete", "connector", "volumes-public", "-n", "kube-public"]);
  });

  const start = async (name: string, options: Parameters<typeof pod>[1]): Promise<void> => {
    await cluster.apply(pod({ namespace: team, name }, options));
  };
  const ready = (name: string, seconds?: number): Promise<void> =>
    cluster.wait("condition=Ready", `pod/${name}`, team, seconds);
  const exec = (name: string, command: string): Promise<string> =>
    cluster.exec(team, name, ["sh", "-c", command]);
  const events = async (of: string, name: string): Promise<readonly Event[]> =>
    cluster.list<Event>("events", of, `--field-selector=involvedObject.name=${name}`);
  const url = (path: string): string => `http://c-harbor.${team}.svc.cluster.local${path}`;
  const repository = `/namespaces/${team}/connectors/harbor/app/base`;
  /** What a Pod gets with a token. */
  const pull = (token: string, where = url(`/v2${repository}/manifests/1`)): string =>
    `wget -q -O- --header "Authorization: Bearer ${token}" ${where}`;
  const ownToken = `$(cat ${files}/context.token)`;

  it("let a non-root Pod with fsGroup read its files, others of the node not, and pull with them", async () => {
    expect(await exec("reader", `stat -Lc '%u %g %a' ${files}/config.json`)).to.equal(
      "0 4711 440\n",
    );
    const config = JSON.parse(await exec("reader", `cat ${files}/config.json`)) as {
      auths: Record<string, { auth: string }>;
    };
    expect(Object.keys(config.auths)).to.include(`c-harbor.${team}.svc.cluster.local`);
    expect(await exec("reader", `cat ${files}/buildkitd.toml`)).to.contain("c-harbor");
    expect(await exec("reader", pull(ownToken))).to.contain('"schemaVersion":2');
    await expectFailure(exec("reader", `touch ${files}/new`));
  });

  it("hold nothing of the registry's", async () => {
    const all = await exec("reader", `cat ${files}/* 2>/dev/null`);
    expect(all).not.to.contain(users.alice);
    expect(all).not.to.contain(Buffer.from(`alice:${users.alice}`).toString("base64"));
  });

  it("keep a Pod waiting that lacks the right, name the Role, and start it once that is there", async () => {
    await cluster.apply(
      pod({ namespace: other, name: "early" }, { volume: { connectors: `${team}/harbor` } }),
    );
    const note = await until(async () => {
      const found = await events(other, "early");
      return found.find(({ reason }) => reason === "FailedMount")?.message;
    }, "no FailedMount event");
    expect(note).to.contain(`system:serviceaccount:${other}:default`);
    const [, rules = ""] = /to a Role with rules: (\[.*\])/.exec(note) ?? [];
    expect(rules, note).to.contain("resourceNames: [harbor]");
    const [role, binding] = right(
      { namespace: team, name: "early" },
      { connectors: [], of: other },
    );
    await cluster.apply({ ...role, rules: parse(rules) }, binding ?? {});
    // The kubelet tries again, more rarely each time.
    await cluster.wait("condition=Ready", "pod/early", other, 100);
    const answer = await cluster.exec(other, "early", ["sh", "-c", pull(ownToken)]);
    expect(answer).to.contain('"schemaVersion":2');
  });

  it("open several connectors, and those of kube-public to everybody who may use them", async () => {
    await cluster.apply(
      ...right(
        { namespace: "kube-public", name: "use-volumes-public" },
        { connectors: ["volumes-public"], of: team },
      ),
    );
    await start("several", {
      volume: {
        connectors: "harbor,second,kube-public/volumes-public",
        "configuration.names": "docker-config",
      },
    });
    await ready("several");
    const config = JSON.parse(await exec("several", `cat ${files}/config.json`)) as {
      auths: Record<string, unknown>;
    };
    for (const [of, name] of [
      [team, "harbor"],
      [team, "second"],
      ["kube-public", "volumes-public"],
    ]) {
      const host = `c-${name}.${of}.svc.cluster.local`;
      expect(Object.keys(config.auths)).to.include(host);
      const where = `http://${host}/v2/app/base/manifests/1`;
      expect(await exec("several", pull(ownToken, where))).to.contain('"schemaVersion":2');
    }
    await cluster.remove(
      ...right(
        { namespace: "kube-public", name: "use-volumes-public" },
        { connectors: ["volumes-public"], of: team },
      ),
    );
  });

  it("say in an event what is wrong with their attributes", async () => {
    await start("misspelt", {
      volume: { connectors: "harbour", "configuration.names": "dockerr" },
    });
    const message = await until(async () => {
      const found = await events(team, "misspelt");
      return found.find(({ reason }) => reason === "FailedMount")?.message;
    }, "no FailedMount event");
    expect(message).to.contain("dockerr").and.contain("docker-config");
    await cluster.kubectl(["delete", "pod", "misspelt", "-n", team, "--timeout=30s"]);
  });

  it("open nothing without a token, with one of another audience, or with one of another cluster", async () => {
    const tokens = {
      none: "",
      nonsense: "nonsense",
      "another audience": await exec(
        "reader",
        "cat /var/run/secrets/kubernetes.io/serviceaccount/token",
      ),
      "another cluster": anotherClusters(await exec("reader", `cat ${files}/context.token`)),
    };
    for (const [what, token] of Object.entries(tokens)) {
      const answer = await exec("reader", `${pull(token.trim())} 2>&1 || true`);
      expect(answer, what).to.contain("401");
    }
  });

  it("open nothing any more once their token has expired", async () => {
    const key = await importPKCS8(
      await readFile(join(cluster.folder, "node1/sa.key"), "utf8"),
      "RS256",
    );
    const token = (await exec("reader", `cat ${files}/context.token`)).trim();
    const now = Math.floor(Date.now() / 1000);
    const answer = async (expiry: number): Promise<string> => {
      const expiring = await new SignJWT({ ...decodeJwt(token), exp: expiry })
        .setProtectedHeader({ alg: "RS256", ...decodeProtectedHeader(token) })
        .sign(key);
      return exec("reader", `${pull(expiring)} 2>&1 || true`);
    };
    expect(await answer(now - 90)).to.contain("401");
    // The API server takes a token for a minute more, since clocks differ.
    const expiry = now - 45;
    expect(await answer(expiry)).to.contain('"schemaVersion":2');
    await until(async () => (await answer(expiry)).includes("401"), "it is still good", 60);
    console.log(`      refused ${Math.round(Date.now() / 1000 - expiry)} s after the expiry`);
  });

  it("lose their token with their Pod", () => deletion);

  async function refusedAfterDeletion(): Promise<void> {
    await start("passing", { volume: { connectors: "harbor" } });
    await ready("passing");
    const token = (await exec("passing", `cat ${files}/context.token`)).trim();
    expect(await exec("reader", pull(token))).to.contain('"schemaVersion":2');
    const begin = performance.now();
    await cluster.kubectl(["delete", "pod", "passing", "-n", team]);
    await until(
      async () => (await exec("reader", `${pull(token)} 2>&1 || true`)).includes("401"),
      "the token of a deleted Pod still opens the connector",
      90,
    );
    console.log(
      `      refused ${Math.round((performance.now() - begin) / 1000)} s after the deletion`,
    );
  }

  it("follow a Secret and an address that change, without a restart of anything", async () => {
    const where = url(`/v2${repository}/manifests/1`);
    await cluster.apply(login({ namespace: team, name: "alice" }, "alice", "no-such-password"));
    await until(
      async () =>
        !(await exec("reader", `${pull(ownToken, where)} 2>&1 || true`)).includes("schemaVersion"),
      "the proxy goes on with a password that has been replaced",
      90,
    );
    await cluster.apply(login({ namespace: team, name: "alice" }, "bob", users.bob));
    await until(
      async () =>
        (await exec("reader", `${pull(ownToken, where)} 2>&1 || true`)).includes("schemaVersion"),
      "the proxy does not take up the new login",
      60,
    );
    const moved = await startNodeRegistry(cluster, "volumes-moved", {
      auth: "bearer",
      users,
      image: { seed: "moved" },
    });
    const before = await exec("reader", pull(ownToken, where));
    await cluster.apply(
      connector({ namespace: team, name: "harbor" }, { address: moved.url, secret: "alice" }),
    );
    await until(
      async () => (await exec("reader", pull(ownToken, where))) !== before,
      "the proxy goes on asking the old address",
      60,
    );
  });

  it("go with their Pods: nothing is mounted afterwards", async () => {
    const pods = [...(await cluster.list("pods", team)), ...(await cluster.list("pods", other))];
    const mounts = async (): Promise<string> => {
      const read = (node: string): Promise<string> =>
        cluster.run(["cat", "/proc/mounts"], { node });
      return (await Promise.all(["node1", "node2"].map(read))).join("");
    };
    const before = await mounts();
    for (const { metadata } of pods) expect(before).to.contain(metadata.uid);
    await cluster.kubectl(["delete", "pod", "--all", "-n", team, "--timeout=60s"]);
    await cluster.kubectl(["delete", "pod", "--all", "-n", other, "--timeout=60s"]);
    const after = await mounts();
    for (const { metadata } of pods) expect(after).not.to.contain(metadata.uid);
  });
});

async function expectFailure(promise: Promise<unknown>): Promise<void> {
  const failed = await promise.then(
    () => false,
    () => true,
  );
  expect(failed).to.equal(true);
}

/** The same claims, signed by nobody of this cluster. */
function anotherClusters(token: string): string {
  const [head, claims, signature = ""] = token.trim().split(".");
  const flipped = signature.startsWith("A") ? `B${signature.slice(1)}` : `A${signature.slice(1)}`;
  return [head, claims, flipped].join(".");
}
