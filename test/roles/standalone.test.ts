/** The job that it is all for: tools pull and push with a mounted volume, and nothing else. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { requirePrograms } from "../../tools/require-programs.ts";
import { cleanup } from "../support/cleanup.ts";
import { type Clients, prepareClients } from "../support/clients.ts";
import { type DockerRegistry, startDockerRegistry } from "../support/docker-registry.ts";
import { writeTestImage } from "../support/oci-image.ts";
import type { Outcome } from "../support/program.ts";
import { searchProcessesDuring } from "../support/secrets-search.ts";
import { type CiHost, startCiHost, type Volume } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";

const mebibyte = 1024 * 1024;

describe("standalone mode: the main job", function () {
  this.timeout(120_000);
  const resources = cleanup();
  let registry: DockerRegistry;
  let clients: Clients;
  let host: CiHost;
  let volume: Volume;
  /** What image names begin with, by scheme. */
  let prefix: Readonly<Record<"http" | "https", string>>;

  before(async () => {
    clients = resources.add(await prepareClients());
    registry = resources.add(await startDockerRegistry({ auth: "token" }));
    host = resources.add(await startCiHost());
    const { username, password } = registry;
    const connector = { ref: "team-a/hub", address: registry.url, login: { username, password } };
    await host.write("hub.yaml", connectorYaml(connector));
    await host.waitForLog("connectors were added, removed or changed", "team-a/hub");
    host.keepSecret("the registry's password", password);
    volume = await host.mount(
      ...(["volume", "team-a/hub", "--configuration", "docker-config,registries-conf"] as const),
      "--params",
      JSON.stringify({ "registries-conf": { mirror: true, scheme: "https" } }),
    );
    const path = "namespaces/team-a/connectors/hub";
    prefix = { http: `${host.http}/${path}`, https: `${host.https}/${path}` };
    await requirePrograms(["busybox"]);
    const base = await writeTestImage(join(clients.folder, "base"), {
      files: { "bin/sh": await readFile("/bin/busybox") },
    });
    succeeds(await push(base.reference, "base:1"));
  });
  after(resources.stop);

  const authfile = (): string[] => ["--authfile", join(volume.path, "config.json")];
  const certDir = (flag = "--cert-dir"): string[] => [
    flag,
    join(volume.path, "certs.d", host.https),
  ];
  const registriesConf = (): string => join(volume.path, "registries.conf");
  const skopeo = (...args: readonly string[]): Promise<Outcome> => see(clients.skopeo(args));
  const buildah = (args: readonly string[], env = {}): Promise<Outcome> =>
    see(clients.buildah(args, { env }));
  async function see(running: Promise<Outcome>): Promise<Outcome> {
    const outcome = await running;
    host.saw("a client's output", outcome.stdout + outcome.stderr);
    return outcome;
  }
  const push = (image: string, name: string): Promise<Outcome> =>
    skopeo(
      "copy",
      ...authfile(),
      ...certDir("--dest-cert-dir"),
      image,
      `docker://${prefix.https}/${name}`,
    );
  const succeeds = ({ status, stderr }: Outcome): void =>
    void expect({ status, stderr: status === 0 ? "" : stderr }).to.deep.equal({
      status: 0,
      stderr: "",
    });
  /** As the registry has it, asked without the proxy. */
  async function digestInRegistry(repository: string, tag: string): Promise<string> {
    const { username, password } = registry;
    const { stdout } = await clients.skopeo([
      "inspect",
      "--tls-verify=false",
      "--creds",
      `${username}:${password}`,
      "--format",
      "{{.Digest}}",
      `docker://${registry.host}/${repository}:${tag}`,
    ]);
    return stdout.trim();
  }

  it("copies an image of several layers, one over 200 MiB, in and out by TLS, digest by digest", async () => {
    const image = await writeTestImage(join(clients.folder, "large"), {
      layerSizes: [10_000, 201 * mebibyte, 3 * mebibyte],
    });
    const name = `docker://${prefix.https}/deep/large:1`;
    succeeds(await push(image.reference, "deep/large:1"));
    expect(await digestInRegistry("deep/large", "1")).to.equal(image.manifest.digest);

    const out = join(clients.folder, "out");
    succeeds(
      await skopeo("copy", ...authfile(), ...certDir("--src-cert-dir"), name, `oci:${out}:latest`),
    );
    const [pulled] = JSON.parse(await readFile(join(out, "index.json"), "utf8")).manifests;
    expect(pulled.digest).to.equal(image.manifest.digest);
    for (const [digest, blob] of image.blobs) {
      const file = join(out, "blobs", digest.replace(":", "/"));
      expect((await readFile(file)).equals(blob), digest).to.equal(true);
    }
  });

  it("copies an image in and out by HTTP, as the volume's registries.conf says", async () => {
    const image = await writeTestImage(join(clients.folder, "small"), { layerSizes: [5, 70_000] });
    const name = `docker://${prefix.http}/small:1`;
    const conf = ["--registries-conf", registriesConf()];
    succeeds(await skopeo(...conf, "copy", ...authfile(), image.reference, name));
    expect(await digestInRegistry("small", "1")).to.equal(image.manifest.digest);
    const out = `dir:${join(clients.folder, "small-out")}`;
    succeeds(await skopeo(...conf, "copy", ...authfile(), name, out));
  });

  describe("builds with buildah", () => {
    let context: string;

    before(async () => {
      context = join(clients.folder, "context");
      await mkdir(context);
      const lines = ["ARG BASE", "FROM $BASE", "RUN echo built > /built", ""];
      await writeFile(join(context, "Containerfile"), lines.join("\n"));
    });

    /** Builds on this base, pushes what came of it, and looks for it in the registry. */
    async function build(
      base: string,
      target: string,
      options: { readonly flags?: readonly string[]; readonly env?: Record<string, string> },
    ): Promise<void> {
      const { flags = [], env = {} } = options;
      const tag = base.replace(/\W/g, "-");
      const built = ["bud", ...authfile(), ...flags, "--build-arg", `BASE=${base}`, "-t", tag];
      succeeds(await buildah([...built, context], env));
      const digestfile = join(clients.folder, "digest");
      const pushed = ["push", ...authfile(), ...flags, "--digestfile", digestfile, tag];
      succeeds(await buildah([...pushed, `docker://${target}:${tag}`], env));
      const digest = await digestInRegistry("app", tag);
      expect(digest).to.equal(await readFile(digestfile, "utf8"));
      expect(digest).to.match(/^sha256:[0-9a-f]{64}$/);
    }

    it("FROM the proxied base, and pushes, by TLS", () =>
      build(`${prefix.https}/base:1`, `${prefix.https}/app`, { flags: certDir() }));

    it("FROM the proxied base, and pushes, by HTTP", () =>
      build(`${prefix.http}/base:1`, `${prefix.http}/app`, {
        env: { CONTAINERS_REGISTRIES_CONF: registriesConf() },
      }));

    it("FROM the image's own name, which the volume's registries.conf sends to the proxy", () =>
      build(`${registry.host}/base:1`, `${prefix.https}/app`, {
        flags: certDir(),
        env: { CONTAINERS_REGISTRIES_CONF: registriesConf() },
      }));
  });

  it("refuses the same commands without the volume's config.json", async () => {
    const image = await writeTestImage(join(clients.folder, "stranger"));
    const name = `docker://${prefix.https}/base:1`;
    const pull = await skopeo("inspect", ...certDir(), name);
    const pushed = await skopeo("copy", ...certDir("--dest-cert-dir"), image.reference, name);
    for (const { status, stderr } of [pull, pushed]) {
      expect(status).not.to.equal(0);
      expect(stderr).to.include("unauthorized: ");
    }
    expect(pull.stderr).to.include("this proxy requires the token of a connectors volume");
    const untrusting = await skopeo("inspect", ...authfile(), name);
    expect(untrusting.stderr).to.include("certificate");
  });

  it("shows the password and the upstream tokens to nobody, while it works or afterwards", async () => {
    const given = registry.tokens?.given ?? [];
    expect(given.length).to.be.above(3);
    for (const [index, token] of given.entries()) host.keepSecret(`upstream token ${index}`, token);
    const secrets = { password: registry.password, token: volume.token, upstream: given[0] ?? "" };
    const { result, findings } = await searchProcessesDuring(secrets, () =>
      skopeo("inspect", ...authfile(), ...certDir(), `docker://${prefix.https}/base:1`),
    );
    succeeds(result);
    expect(findings).to.deep.equal([]);
    expect(await host.leaks()).to.deep.equal([]);
  });

  it("would find what is shown", async () => {
    host.saw("a planted token", `>>${volume.token}<<`);
    host.saw("a planted password", Buffer.from(`alice:${registry.password}`).toString("base64"));
    await writeFile(join(host.state, "planted"), `${registry.tokens?.given[0]}`);
    const found = (await host.leaks()).map(({ where }) => where.replace(/^.*[/:] ?/, ""));
    expect(found).to.have.members(["a planted token", "a planted password", "planted"]);
  });
});
