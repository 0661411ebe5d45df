import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { requirePrograms } from "../../tools/require-programs.ts";
import { cleanup } from "./cleanup.ts";
import { type Clients, prepareClients } from "./clients.ts";
import { type DockerRegistry, startDockerRegistry } from "./docker-registry.ts";
import { writeTestImage } from "./oci-image.ts";

describe("docker-registry, skopeo and buildah", function () {
  this.timeout(120_000);
  const resources = cleanup();
  let clients: Clients;
  let image: Awaited<ReturnType<typeof writeTestImage>>;

  before(async () => {
    clients = resources.add(await prepareClients());
    image = await writeTestImage(join(clients.folder, "image"), { layerSizes: [1000, 100_000] });
  });
  after(resources.stop);

  const tls = (registry: DockerRegistry, prefix = ""): string[] =>
    registry.tls ? [`--${prefix}cert-dir`, registry.tls.certDir] : [`--${prefix}tls-verify=false`];

  for (const options of [
    { auth: "none" },
    { auth: "htpasswd" },
    { auth: "token" },
    { auth: "token", tls: true },
  ] as const) {
    it(`push and pull with ${JSON.stringify(options)}`, async () => {
      const registry = resources.add(await startDockerRegistry(options));
      const login = `${registry.username}:${registry.password}`;
      const destination = `docker://${registry.host}/app:1`;

      const pushed = await clients.skopeo([
        "copy",
        ...tls(registry, "dest-"),
        "--dest-creds",
        login,
        image.reference,
        destination,
      ]);
      expect(pushed.stderr).to.equal("");
      const inspected = await clients.skopeo([
        "inspect",
        ...tls(registry),
        "--creds",
        login,
        "--format",
        "{{.Digest}}",
        destination,
      ]);
      expect(inspected.stdout.trim()).to.equal(image.manifest.digest);

      const stranger = await clients.skopeo(["inspect", ...tls(registry), destination]);
      expect(stranger.status === 0).to.equal(options.auth === "none");
    });
  }

  it("buildah builds on a registry's image and pushes the result", async () => {
    const registry = resources.add(await startDockerRegistry({ auth: "token" }));
    const login = `${registry.username}:${registry.password}`;
    const flags = ["--tls-verify=false", "--creds", login];
    const base = `${registry.host}/base:1`;
    await requirePrograms(["busybox"]);
    const withShell = await writeTestImage(join(clients.folder, "shell"), {
      files: { "bin/sh": await readFile("/bin/busybox") },
    });
    await clients.skopeo([
      "copy",
      "--dest-tls-verify=false",
      "--dest-creds",
      login,
      ...[withShell.reference, `docker://${base}`],
    ]);
    const context = join(clients.folder, "context");
    await mkdir(context);
    await writeFile(join(context, "Dockerfile"), `FROM ${base}\nRUN echo hello > /hello\n`);

    const built = await clients.buildah(["bud", ...flags, "-t", "app", context]);
    expect(built.status).to.equal(0, built.stderr);
    const pushed = await clients.buildah(["push", ...flags, "app", `${registry.host}/app:2`]);
    expect(pushed.status).to.equal(0, pushed.stderr);
    const tags = await clients.skopeo(["list-tags", ...flags, `docker://${registry.host}/app`]);
    expect(JSON.parse(tags.stdout)).to.have.deep.property("Tags", ["2"]);
    expect(registry.tokens?.requests.map(({ user }) => user)).to.include("alice");
  });
});
