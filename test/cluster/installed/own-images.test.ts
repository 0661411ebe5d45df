import { hash, randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { expect } from "chai";
import { cleanup } from "../../support/cleanup.ts";
import { makeTempFolder } from "../../support/temp-folder.ts";
import { changedSettings, writeOverlay } from "../overlay.ts";
import { imageFolders } from "../worker-node.ts";
import { nodes } from "./client-pods.ts";
import {
  type InstalledCluster,
  install,
  installedCluster,
  system,
  until,
} from "./installed-cluster.ts";
import { type NodeRegistry, startNodeRegistry } from "./node-registry.ts";
import { connector, login, namespace } from "./objects.ts";

const team = "images-a";
const other = "images-b";
const users = { alice: "password-of-alice" };
const root = join(import.meta.dirname, "../../..");
const daemonSet = "daemonset/connectors-node-images";

/**
 * Changes the configuration of an image in a folder of skopeo's, and so its id. A kubelet that has pulled an id with a login
 * wants one of whoever uses it later, by whatever name (KEP-2535), and the Pods of other tests use the image that was loaded.
 */
async function giveOwnId(folder: string): Promise<void> {
  const manifestFile = join(folder, "manifest.json");
  const manifest = JSON.parse(await readFile(manifestFile, "utf8")) as {
    config: { digest: string; size: number };
  };
  const config = JSON.parse(
    await readFile(join(folder, manifest.config.digest.replace("sha256:", "")), "utf8"),
  ) as { config?: object };
  const changed = Buffer.from(
    JSON.stringify({ ...config, config: { ...config.config, Labels: { of: "own-images" } } }),
  );
  const digest = hash("sha256", changed, "hex");
  await writeFile(join(folder, digest), changed);
  Object.assign(manifest.config, { digest: `sha256:${digest}`, size: changed.length });
  await writeFile(manifestFile, JSON.stringify(manifest));
}

interface Event {
  readonly message: string;
  readonly involvedObject: { readonly name: string };
}

describe("Pods' own images, by their own names and without pull Secrets", function () {
  this.timeout(300_000);
  const resources = cleanup();
  let cluster: InstalledCluster;
  /** By the way of their logins. */
  let registries: Readonly<Record<"bearer" | "basic", NodeRegistry>>;
  let overlays: string;
  /** Everything of the nodes' folders, before anything is installed. */
  let original: readonly string[];

  before(async function () {
    this.timeout(45 * 60_000); // building a cluster cold
    cluster = await installedCluster();
    overlays = resources.add(makeTempFolder("own-images")).path;
    const image = join(overlays, "image");
    const archive = join(cluster.folder, "node1/box.tar");
    await cluster.run([
      "skopeo",
      "--insecure-policy",
      "copy",
      "--quiet",
      `docker-archive:${archive}`,
      `dir:${image}`,
    ]);
    await giveOwnId(image);
    const start = (auth: "bearer" | "basic", hostname: string): Promise<NodeRegistry> =>
      startNodeRegistry(cluster, `own-images-${auth}`, {
        auth,
        users,
        tls: true,
        hostname,
        folder: image,
      });
    registries = {
      bearer: await start("bearer", "base.example.com"),
      basic: await start("basic", "target.example.com"),
    };
    await cluster.apply(namespace(team), namespace(other));
    await cluster.apply(
      login({ namespace: team, name: "login" }, "alice", users.alice),
      ...Object.entries(registries).flatMap(([name, { url: address, ca }]) => [
        {
          apiVersion: "v1",
          kind: "Secret",
          metadata: { namespace: team, name: `${name}-ca` },
          stringData: { "ca.crt": ca },
        },
        connector(
          { namespace: team, name },
          { address, secret: "login", caCertSecretRef: { name: `${name}-ca` } },
        ),
      ]),
      ...["web", "stranger"].map((name) => serviceAccount(team, name)),
      serviceAccount(other, "web"),
      ...rightOf("web"),
    );
    for (const name of ["bearer", "basic"]) {
      await cluster.wait("condition=Ready", `connector/${name}`, team);
    }
    original = await snapshots();
    await installImages({});
    await restartKubelets();
  });
  after(async function () {
    this.timeout(300_000);
    if (cluster !== undefined) {
      await cluster.kubectl(["delete", "namespace", team, other, "--timeout=120s"]);
      await installImages({ NODE_IMAGES: "purge" });
      for (const file of ["daemonset", "networkpolicy", "rbac"]) {
        const path = join(root, `daemonset/components/node-images/${file}.yaml`);
        await cluster.kubectl(["delete", "--ignore-not-found", "-f", path]);
      }
      await restartKubelets();
      await install(cluster);
    }
    await resources.stop();
  });

  const serviceAccount = (where: string, name: string): object => ({
    apiVersion: "v1",
    kind: "ServiceAccount",
    metadata: { namespace: where, name },
  });

  /** The Role and RoleBinding by which a ServiceAccount may use the team's connectors. */
  function rightOf(name: string): readonly object[] {
    const group = "rbac.authorization.k8s.io";
    const at = { apiVersion: `${group}/v1`, metadata: { namespace: team, name } };
    const resourceNames = ["bearer", "basic"];
    return [
      {
        ...at,
        kind: "Role",
        rules: [
          {
            apiGroups: ["connectors.alauda.io"],
            resources: ["connectors"],
            resourceNames,
            verbs: ["get"],
          },
        ],
      },
      {
        ...at,
        kind: "RoleBinding",
        subjects: [{ kind: "ServiceAccount", namespace: team, name }],
        roleRef: { apiGroup: group, kind: "Role", name },
      },
    ];
  }

  /** Installs the program with the component, and waits until each node's files are as wanted. */
  async function installImages(settings: Readonly<Record<string, string>>): Promise<void> {
    const hosts = Object.values(registries).map(({ host }) => host);
    const all = {
      NODE_IMAGE_HOSTS: hosts.join(","),
      NODE_CERTS: imageFolders.certs,
      NODE_PROVIDER_BIN: imageFolders.providerBin,
      NODE_PROVIDER_FOLDER: imageFolders.providerConfig,
      ...settings,
    };
    const folder = join(overlays, "settings");
    const overlay = join(overlays, "overlay");
    const to = (path: string): string => relative(overlay, join(root, path));
    const literals = Object.entries(all).map(([name, value]) => `${name}=${value}`);
    await writeOverlay(folder, changedSettings({ literals }), "Component");
    await writeOverlay(overlay, {
      resources: [to("test/cluster/install")],
      components: ["../settings", to("daemonset/components/node-images")],
      images: [{ name: "oci-connector", newName: "localhost/oci-connector", newTag: "test" }],
    });
    await install(cluster, overlay);
    await cluster.kubectl(["rollout", "status", daemonSet, "-n", system, "--timeout=240s"]);
  }

  async function restartKubelets(): Promise<void> {
    for (const node of nodes) await cluster.restart("kubelet", { node });
    for (const node of nodes) {
      const lease = [
        "get",
        "lease",
        node,
        "-n",
        "kube-node-lease",
        "-o",
        "jsonpath={.spec.renewTime}",
      ];
      const last = await cluster.kubectl(lease);
      await until(
        async () => (await cluster.kubectl(lease)) !== last,
        `the kubelet of ${node} does not come back`,
      );
    }
  }

  /** Names, modes and bytes of all files in the nodes' folders. */
  const snapshots = (): Promise<readonly string[]> =>
    Promise.all(
      nodes.map((node) =>
        cluster.run(
          [
            "bash",
            "-euc",
            "cd /var/lib/node-images; find . | sort; find . -type f -printf '%p %m %U %T@\\n' | sort; find . -type f | sort | xargs sha256sum",
          ],
          { node },
        ),
      ),
    );

  const runPod = async (
    where: string,
    name: string,
    image: string,
    { account = "web", node }: { readonly account?: string; readonly node?: string } = {},
  ): Promise<void> => {
    const overrides = {
      spec: {
        serviceAccountName: account,
        terminationGracePeriodSeconds: 1,
        ...(node === undefined ? {} : { nodeName: node }),
      },
    };
    await cluster.kubectl([
      "run",
      name,
      "-n",
      where,
      `--image=${image}`,
      "--image-pull-policy=Always",
      `--overrides=${JSON.stringify(overrides)}`,
      "--command",
      "--",
      "sleep",
      "1000000",
    ]);
  };
  const saysOf = (where: string, pod: string, text: string): Promise<string> =>
    until(
      async () => {
        const events = await cluster.list<Event>("events", where);
        const found = events.find(
          ({ involvedObject, message }) => involvedObject.name === pod && message.includes(text),
        );
        return found?.message;
      },
      `no event of ${where}/${pod} has "${text}"`,
      120,
    );
  const imageOf = (auth: "bearer" | "basic"): string => `${registries[auth].host}/app/web:1`;

  it("run on each node, from a registry with tokens and from one with Basic logins, by TLS everywhere", async () => {
    for (const auth of ["bearer", "basic"] as const) {
      for (const node of nodes) await runPod(team, `${auth}-${node}`, imageOf(auth), { node });
    }
    for (const auth of ["bearer", "basic"] as const) {
      for (const node of nodes) await cluster.wait("condition=Ready", `pod/${auth}-${node}`, team);
      const requests = await registries[auth].requests();
      expect(requests.join("\n")).to.match(/^(GET|HEAD) \/v2\/app\/web\/manifests\/.* 200$/m);
    }
  });

  it("wait where there is no Connector, and the event says so", async () => {
    await runPod(other, "lost", imageOf("bearer"));
    const message = await saysOf(
      other,
      "lost",
      "403 no connector of images-b or kube-public is at https://base.example.com",
    );
    expect(message).to.contain("ailed to pull");
  });

  it("wait for a ServiceAccount without the right: describe names the Role, and with it they run by themselves", async () => {
    await runPod(team, "refused", imageOf("basic"), { account: "stranger" });
    await saysOf(
      team,
      "refused",
      "403 allow system:serviceaccount:images-a:stranger to get connectors",
    );
    const described = await cluster.kubectl(["describe", "pod", "refused", "-n", team]);
    expect(described).to.match(/ErrImagePull|ImagePullBackOff/);
    expect(described).to.contain('connectors.connectors.alauda.io "basic" in namespace images-a');
    expect(described).to.contain("resourceNames: [basic], verbs: [get]");
    await cluster.apply(...rightOf("stranger"));
    await cluster.wait("condition=Ready", "pod/refused", team, 180);
  });

  it("need a right that nodes have, and nobody else", async () => {
    const canAsk = (...as: readonly string[]): Promise<string> =>
      cluster
        .kubectl([
          "auth",
          "can-i",
          "request-serviceaccounts-token-audience",
          "connectors-images",
          ...as,
        ])
        .catch((error: unknown) => String(error));
    expect(await canAsk("--as=system:node:node1", "--as-group=system:nodes")).to.contain("yes");
    expect(await canAsk("--as=system:serviceaccount:images-a:web")).to.contain("no");
  });

  it("never bring a Pod's token to a registry, nor a pull Secret's password past the proxy", async () => {
    const password = "password-of-an-old-pull-secret";
    const { host } = registries.bearer;
    await cluster.kubectl([
      "create",
      "secret",
      "docker-registry",
      "old",
      "-n",
      team,
      `--docker-server=${host}`,
      "--docker-username=old",
      `--docker-password=${password}`,
    ]);
    await cluster.kubectl([
      "patch",
      "serviceaccount",
      "web",
      "-n",
      team,
      "-p",
      '{"imagePullSecrets":[{"name":"old"}]}',
    ]);
    await runPod(team, "with-secret", imageOf("bearer"));
    await cluster.wait("condition=Ready", "pod/with-secret", team, 120);
    for (const { authorizations } of Object.values(registries)) {
      const all = await authorizations();
      expect(all).to.not.have.length(0);
      for (const value of all) {
        const text = `${value} ${Buffer.from(value.replace(/^Basic /, ""), "base64")}`;
        expect(text).to.not.contain(password);
        expect(text).to.not.contain("connectors-images");
        expect(text).to.not.match(/^Bearer eyJhbGciOiJSUzI1NiIs/); // a token of the cluster
        if (value.startsWith("Basic ")) expect(text).to.contain("alice:");
      }
    }
    const logs = await cluster.kubectl([
      "logs",
      "-n",
      system,
      "-l",
      "app.kubernetes.io/name=oci-connector",
      "--all-containers",
      "--tail=-1",
    ]);
    expect(logs).to.contain('"pod":"images-a/with-secret"');
    expect(logs).to.not.contain(password);
  });

  it("leave a node's files as they were when they are uninstalled, and again after another installation", async function () {
    // Two installations and their updates: what is busy on the machine may make a Pod wait for a long time.
    this.retries(1);
    const again = `again-${randomBytes(4).toString("hex")}`;
    await installImages({ NODE_IMAGES: "remove" });
    expect(await snapshots()).to.deep.equal(original);
    await restartKubelets();
    // The other way, which older kubelets need: into the vendor's own file.
    const merged = { NODE_PROVIDER_FILE: "vendor.yaml" };
    await installImages(merged);
    await restartKubelets();
    await runPod(team, again, imageOf("basic"));
    await cluster
      .wait("condition=Ready", `pod/${again}`, team, 120)
      .catch(async (error: unknown) => {
        const described = await cluster.kubectl(["describe", "pod", again, "-n", team]);
        throw new Error(described, { cause: error });
      });
    await installImages({ ...merged, NODE_IMAGES: "remove" });
    expect(await snapshots()).to.deep.equal(original);
    await restartKubelets();
  });
});
