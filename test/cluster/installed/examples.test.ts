import { join } from "node:path";
import { buildClientPrograms } from "../../clients/client-programs.ts";
import { type InstalledCluster, installedCluster } from "./installed-cluster.ts";
import { startNodeRegistry } from "./node-registry.ts";
import { namespace } from "./objects.ts";
import { applyExample, expectSuccess } from "./run-example.ts";
import { loadToolImage } from "./tool-images.ts";

const team = "team-a";
const users = { robot: "password-of-robot" };

describe("the examples for Kubernetes", function () {
  this.timeout(180_000);
  let cluster: InstalledCluster;

  const apply = (file: string, replaced?: Readonly<Record<string, string>>): Promise<void> =>
    applyExample(cluster, file, replaced);
  const succeeds = (kind: "pod" | "job", name: string): Promise<void> =>
    expectSuccess(cluster, team, kind, name);

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
