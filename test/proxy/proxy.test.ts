import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { type DockerRegistryOptions, startDockerRegistry } from "../support/docker-registry.ts";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { type Descriptor, sha256, writeTestImage } from "../support/oci-image.ts";
import type { Outcome } from "../support/program.ts";
import { searchProcessesDuring, searchSecrets } from "../support/secrets-search.ts";
import { startTcpTap } from "../support/tcp-tap.ts";
import { type Access, type ImageClient, prepareImageClient } from "./image-client.ts";
import { startTestProxy, type TestProxy } from "./test-proxy.ts";

const mebibyte = 1024 * 1024;

describe("the proxy, between real clients and a real registry", function () {
  this.timeout(120_000);
  const resources = cleanup();
  let client: ImageClient;
  let proxy: TestProxy;
  let image: Awaited<ReturnType<typeof writeTestImage>>;

  before(async () => {
    client = resources.add(await prepareImageClient());
    proxy = resources.add(await startTestProxy());
    image = await writeTestImage(join(client.folder, "image"), { layerSizes: [100, 2_000_000, 5] });
  });
  after(resources.stop);

  const connectTo = async (name: string, options: DockerRegistryOptions): Promise<void> => {
    const registry = resources.add(await startDockerRegistry(options));
    const { username, password, tls, url } = registry;
    const credential = options.auth === "none" ? {} : { credential: { username, password } };
    proxy.connect(name, url, { ...credential, caCertificates: tls === undefined ? [] : [tls.ca] });
  };
  const succeed = async (running: Promise<Outcome>): Promise<Outcome> => {
    const outcome = await running;
    expect(outcome.status).to.equal(0, outcome.stderr);
    return outcome;
  };
  const push = (access: Access, reference: string, name: string): Promise<Outcome> =>
    succeed(
      client.skopeo([
        "copy",
        ...client.login(access, "dest-"),
        reference,
        `docker://${access.prefix}/${name}`,
      ]),
    );
  /** @returns what came back, blob by blob */
  const pull = async (
    access: Access,
    name: string,
  ): Promise<(digest: string) => Promise<Buffer>> => {
    const folder = join(client.folder, `pulled-${name.replaceAll(/\W/g, "-")}-${Date.now()}`);
    await succeed(
      client.skopeo([
        "copy",
        ...client.login(access, "src-"),
        `docker://${access.prefix}/${name}`,
        `dir:${folder}`,
      ]),
    );
    return (digest) => readFile(join(folder, digest.replace("sha256:", "")));
  };
  const isWhole = async (
    read: (digest: string) => Promise<Buffer>,
    {
      layers,
      config,
      manifest,
    }: { layers: readonly Descriptor[]; config: Descriptor; manifest: Descriptor },
  ): Promise<void> => {
    for (const { digest } of [config, ...layers])
      expect(sha256(await read(digest))).to.equal(digest);
    expect(sha256(await read("manifest.json"))).to.equal(manifest.digest);
  };

  const cases: readonly (readonly ["http" | "https", DockerRegistryOptions])[] = [
    ["http", { auth: "none" }],
    ["https", { auth: "htpasswd", tls: true }],
    ["http", { auth: "token" }],
    ["https", { auth: "token", http: { relativeurls: true } }],
  ];
  for (const [scheme, options] of cases) {
    it(`skopeo pushes and pulls over ${scheme}, with ${JSON.stringify(options)}`, async () => {
      await connectTo("plain", options);
      const access = await client.access(proxy, "plain", { scheme });
      await push(access, image.reference, "team/app:1");
      await isWhole(await pull(access, "team/app:1"), image);
      await push(access, image.reference, "team/other:1"); // mounts, or tries to
      const { stdout } = await succeed(
        client.skopeo([
          "list-tags",
          ...client.login(access),
          `docker://${access.prefix}/team/other`,
        ]),
      );
      expect(JSON.parse(stdout)).to.have.deep.property("Tags", ["1"]);
      await succeed(
        client.skopeo(["delete", ...client.login(access), `docker://${access.prefix}/team/app:1`]),
      );
    });
  }

  it("buildah builds from an image and pushes the result, over TLS", async () => {
    await connectTo("builds", { auth: "token" });
    const access = await client.access(proxy, "builds", { scheme: "https" });
    await push(access, image.reference, "base:1");
    const context = join(client.folder, "context");
    await mkdir(context);
    const base = `${access.prefix}/base:1`;
    await writeFile(join(context, "Dockerfile"), `FROM ${base}\nCOPY Dockerfile /\n`);
    const flags = client.login(access);
    await succeed(client.buildah(["bud", ...flags, "-t", "app", context]));
    await succeed(client.buildah(["push", ...flags, "app", `${access.prefix}/app:2`]));
    const { stdout } = await succeed(
      client.skopeo(["inspect", ...flags, `docker://${access.prefix}/app:2`]),
    );
    expect(JSON.parse(stdout).Layers).to.have.length(4);
  });

  it("an image with a layer of more than 200 MiB comes back as it was", async () => {
    await connectTo("large", { auth: "token" });
    const layerSizes = [1000, 201 * mebibyte, 3 * mebibyte];
    const large = await writeTestImage(join(client.folder, "large"), { layerSizes });
    await push(await client.access(proxy, "large", { scheme: "https" }), large.reference, "app:1");
    await isWhole(await pull(await client.access(proxy, "large"), "app:1"), large);
  });

  it("a client without a token, or with another connector's, gets nothing", async () => {
    await connectTo("closed", { auth: "none" });
    await push(await client.access(proxy, "closed"), image.reference, "app:1");
    const other = await client.access(proxy, "other");
    const { prefix } = await client.access(proxy, "closed");
    for (const flags of [client.login(other), ["--tls-verify=false", "--no-creds"]]) {
      const outcome = await client.skopeo(["inspect", ...flags, `docker://${prefix}/app:1`]);
      expect(outcome.status).to.not.equal(0);
    }
  });

  it("nothing of the registry's credentials and upload URLs reaches a client or the log", async () => {
    const registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    registry.uploadLocation = "state";
    const credential = { username: "alice", password: "secret-of-alice" };
    proxy.connect("searched", registry.url, { credential });
    const tap = resources.add(await startTcpTap(proxy.http));
    const access = await client.access(proxy, "searched", { host: tap.host });
    const wanted = { password: credential.password };
    const { result, findings } = await searchProcessesDuring(wanted, async () => [
      await push(access, image.reference, "app:1"),
      await client.skopeo([
        "--debug",
        "inspect",
        ...client.login(access),
        `docker://${access.prefix}/app:1`,
      ]),
      await client.skopeo([
        "--debug",
        "inspect",
        ...client.login(access),
        `docker://${access.prefix}/no:1`,
      ]),
    ]);
    expect(findings).to.deep.equal([]);
    expect(result.map(({ status }) => status)).to.deep.equal([0, 0, 1]);
    const tokens = [...registry.auth.tokens.keys()];
    const uploads = registry.requests
      .filter(({ target }) => target.kind === "upload")
      .map(({ url }) => url.replace(/&?digest=.*/, ""));
    expect(uploads.length).to.be.above(3);
    expect(uploads[0]).to.match(/uploads\/.+_state=/);
    expect(tokens.length).to.be.above(1);
    const secrets = Object.fromEntries(
      [credential.password, ...tokens, ...uploads, registry.host].map((text, index) => [
        `secret ${index}`,
        text,
      ]),
    );
    const outputs = {
      "what clients received": tap.toClients(),
      "what clients wrote": result.map(({ stdout, stderr }) => stdout + stderr).join("\n"),
      "the proxy's log": proxy.log(),
    };
    expect(outputs["what clients received"].length).to.be.above(5000);
    expect(await searchSecrets({ secrets, outputs })).to.deep.equal([]);
  });
});
