import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { buildClientPrograms } from "../../clients/client-programs.ts";
import { type InstalledCluster, installedCluster, until } from "./installed-cluster.ts";
import { startNodeRegistry } from "./node-registry.ts";
import { namespace } from "./objects.ts";
import { loadToolImage } from "./tool-images.ts";

const examples = join(import.meta.dirname, "../../../examples/kubernetes");
const team = "team-a";
const users = { robot: "password-of-robot" };

describe("the examples for Kubernetes", function () {
  this.timeout(180_000);
  let cluster: InstalledCluster;

  /** What a reader does: puts in their own registry and login, and here the image of the tool that the nodes have. */
  async function apply(
    file: string,
    replaced: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    let text = await readFile(join(examples, file), "utf8");
    for (const [from, to] of Object.entries(replaced)) {
      expect(text).to.contain(from);
      text = text.replaceAll(from, to);
    }
    await cluster.kubectl(["apply", "-f", "-"], text);
  }

  before(async function () {
    this.timeout(45 * 60_000); // building a cluster cold
    cluster = await installedCluster();
    const registry = await startNodeRegistry(cluster, "examples", { auth: "bearer", users });
    await cluster.apply(namespace(team));
    await apply("connector.yaml", {
      "https://harbor.example.com": registry.url,
      "change-me": users.robot,
    });
    await apply("right.yaml");
    await cluster.wait("condition=Ready", "connector/harbor", team);
  });
  after(async () => {
    await cluster?.kubectl(["delete", "namespace", team, "--wait=false"]);
  });

  /** Waits for the end of a Pod. @throws with its log, where it is no good one */
  async function succeeds(kind: "pod" | "job", name: string): Promise<void> {
    const phase = await until(
      async () => {
        const selector = kind === "job" ? ["-l", `job-name=${name}`] : [];
        const pods = await cluster.list("pods", team, ...selector);
        const own = pods.find(({ metadata }) => kind === "job" || metadata.name === name);
        const found = own?.status.phase as string | undefined;
        return (found === "Succeeded" || found === "Failed") && found;
      },
      `the ${kind} ${name} does not end`,
      120,
    );
    const log = await cluster.kubectl(["logs", "-n", team, `${kind}/${name}`, "--tail=50"]);
    expect(phase, log).to.equal("Succeeded");
  }

  it("skopeo copies in a restricted Pod", async () => {
    const image = await loadToolImage(cluster, { name: "skopeo", programs: ["skopeo"] });
    await apply("skopeo/pod.yaml", { "quay.io/skopeo/stable": image });
    await succeeds("pod", "skopeo");
  });

  it("buildah builds on a private image, and pushes, as a Job", async () => {
    const image = await loadToolImage(cluster, { name: "buildah", programs: ["buildah"] });
    await apply("buildah/job.yaml", { "quay.io/buildah/stable": image });
    await succeeds("job", "buildah");
  });

  it("buildah does so without verifying anything, too", async () => {
    await apply("buildah/job.yaml", {
      "quay.io/buildah/stable": "localhost/buildah:1",
      '"--cert-dir /run/connectors/certs.d/$REGISTRY"': "--tls-verify=false",
      "name: buildah, namespace": "name: buildah-insecure, namespace",
      "app/buildah:1": "app/buildah-insecure:1",
    });
    await succeeds("job", "buildah-insecure");
  });

  it("buildkit builds on a private image, and pushes, as a Job", async function () {
    this.timeout(30 * 60_000); // building buildkit cold
    const names = ["buildkitd", "buildctl"];
    const bin = await buildClientPrograms(names);
    const programs = [...names.map((name) => join(bin, name)), "runc"];
    const image = await loadToolImage(cluster, { name: "buildkit", programs });
    await apply("buildkit/job.yaml", { "docker.io/moby/buildkit": image });
    await succeeds("job", "buildkit");
  });

  it("buildkit does so over plain HTTP, too", async () => {
    await apply("buildkit/job.yaml", {
      "docker.io/moby/buildkit": "localhost/buildkit:1",
      '"scheme": "https"': '"scheme": "http"',
      "name: buildkit, namespace": "name: buildkit-http, namespace",
      "app/buildkit:1": "app/buildkit-http:1",
    });
    await succeeds("job", "buildkit-http");
  });
});
