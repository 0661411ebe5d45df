/** What takes minutes, and runs when it is asked for: `SLOW=1 npm test -- --grep slowly`. */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, rename, writeFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { Readable, Transform, type TransformCallback } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { createGzip } from "node:zlib";
import { expect } from "chai";
import { cleanup, type Stoppable } from "../support/cleanup.ts";
import { prepareClients } from "../support/clients.ts";
import { startDockerRegistry } from "../support/docker-registry.ts";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { addImage } from "../support/fake-registry-content.ts";
import { noise, sha256 } from "../support/oci-image.ts";
import { startCiHost } from "./ci-host.ts";
import { connectorYaml } from "./manifests.ts";

const mebibyte = 1024 * 1024;
const gibibyte = 1024 * mebibyte;
/** Seconds. docker-registry accepts a token for 60 more, for the sake of clocks that differ. */
const tokenLifetime = 60;
const leeway = 60;
const pushTakes = tokenLifetime + leeway + 30;

(process.env.SLOW === "1" ? describe : describe.skip)("standalone mode, slowly", function () {
  this.timeout(600_000);
  const resources = cleanup();
  after(resources.stop);

  it("waits for a registry as long as its client does: 20 s for /v2/ and for a token, 40 s for a manifest", async () => {
    const login = { username: "alice", password: "secret-of-alice" };
    const registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    addImage(registry.repository("app"), "1", { seed: "slow" });
    for (const [route, seconds] of [
      ["GET ping", 20],
      ["GET token", 20],
      ["GET manifest", 40],
    ] as const) {
      const wait = async ({ next }: { readonly next: () => Promise<void> }): Promise<void> => {
        await sleep(seconds * 1000);
        await next();
      };
      registry.on(route, wait, route === "GET manifest" ? "after auth" : "before auth");
    }
    const host = resources.add(await startCiHost());
    await host.write(
      "slow.yaml",
      connectorYaml({ ref: "team-a/slow", address: registry.url, login }),
    );
    await host.waitForLog("connectors were added, removed or changed");
    const volume = await host.mount("slow", "team-a/slow");
    const { status } = await volume.request("GET", "team-a/slow", "app/manifests/1", {
      timeout: 120_000,
    });
    expect(status).to.equal(200);
    const kinds = registry.requests.map(({ target }) => target.kind);
    expect(kinds).to.deep.equal(["ping", "token", "manifest"]);
    await host.unmount("slow");
  });

  it("pushes a layer of 1 GiB for longer than the registry's token lives", async () => {
    const clients = resources.add(await prepareClients());
    const registry = resources.add(await startDockerRegistry({ auth: "token" }));
    const { tokens, username, password } = registry;
    if (tokens === undefined) throw new Error("no token server");
    tokens.lifetime = tokenLifetime;
    const slow = resources.add(await startThrottle(registry.port, gibibyte / pushTakes));
    const host = resources.add(await startCiHost());
    host.keepSecret("the registry's password", password);
    const address = `http://localhost:${slow.port}`;
    const login = { username, password };
    await host.write("hub.yaml", connectorYaml({ ref: "team-a/hub", address, login }));
    await host.waitForLog("connectors were added, removed or changed");
    const volume = await host.mount(
      "v",
      "team-a/hub",
      "--configuration",
      "docker-config,containerd",
    );
    const image = await writeLargeImage(join(clients.folder, "image"), gibibyte);

    const began = performance.now();
    const { status, stderr } = await clients.skopeo(
      [
        "copy",
        "--authfile",
        join(volume.path, "config.json"),
        "--dest-cert-dir",
        join(volume.path, "certs.d", host.https),
        image.reference,
        `docker://${host.https}/namespaces/team-a/connectors/hub/large:1`,
      ],
      { timeout: 500_000 },
    );
    const took = (performance.now() - began) / 1000;
    expect({ status, stderr }).to.deep.equal({ status: 0, stderr: "" });
    expect(took, "a push that is over before the token's end shows nothing").to.be.above(
      tokenLifetime + leeway,
    );
    const inspected = await clients.skopeo([
      "inspect",
      "--tls-verify=false",
      "--creds",
      `${username}:${password}`,
      "--format",
      "{{.Digest}}",
      `docker://${registry.host}/large:1`,
    ]);
    expect(inspected.stdout.trim()).to.equal(image.digest);
    const pushes = tokens.requests.filter(({ url }) => url.search.includes("push")).length;
    console.log(`      ${Math.round(took)} s, ${pushes} tokens for pushing`);
    expect(pushes, "one token can't have lasted").to.be.above(1);
    for (const [index, token] of tokens.given.entries()) host.keepSecret(`token ${index}`, token);
    expect(await host.leaks()).to.deep.equal([]);
  });
});

/** A way to a port of this machine that lets so many bytes through per second, towards it. */
async function startThrottle(
  port: number,
  bytesPerSecond: number,
): Promise<Stoppable & { readonly port: number }> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    for (const socket of [client, upstream]) sockets.add(socket);
    const slowly = new Transform({
      transform(chunk: Buffer, _encoding, done: TransformCallback) {
        setTimeout(() => done(null, chunk), (chunk.length / bytesPerSecond) * 1000);
      },
    });
    pipeline(client, slowly, upstream).catch(() => upstream.destroy());
    pipeline(upstream, client).catch(() => client.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    stop: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

/**
 * An OCI layout with one layer of so many bytes, which are never held in memory. They are no archive:
 * a client that copies an image looks at their digest alone.
 */
async function writeLargeImage(
  folder: string,
  size: number,
): Promise<{ readonly reference: string; readonly digest: string }> {
  const blobs = join(folder, "blobs", "sha256");
  await mkdir(blobs, { recursive: true });
  const store = async (mediaType: string, value: object) => {
    const bytes = Buffer.from(JSON.stringify(value));
    const digest = sha256(bytes);
    await writeFile(join(blobs, digest.replace("sha256:", "")), bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const part = noise("large", mebibyte);
  function* parts(): Generator<Buffer> {
    for (let left = size / mebibyte; left > 0; left -= 1) yield part;
  }
  const path = join(folder, "layer");
  await pipeline(Readable.from(parts()), createGzip({ level: 0 }), createWriteStream(path));
  const hash = createHash("sha256");
  let length = 0;
  for await (const chunk of createReadStream(path)) {
    hash.update(chunk);
    length += chunk.length;
  }
  const hex = hash.digest("hex");
  await rename(path, join(blobs, hex));
  const layer = {
    mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    digest: `sha256:${hex}`,
    size: length,
  };
  const config = await store("application/vnd.oci.image.config.v1+json", {
    architecture: "amd64",
    os: "linux",
    rootfs: { type: "layers", diff_ids: [layer.digest] },
  });
  const type = "application/vnd.oci.image.manifest.v1+json";
  const document = { schemaVersion: 2, mediaType: type, config, layers: [layer] };
  const manifest = await store(type, document);
  const annotations = { "org.opencontainers.image.ref.name": "latest" };
  const index = { schemaVersion: 2, manifests: [{ ...manifest, annotations }] };
  await writeFile(join(folder, "index.json"), JSON.stringify(index));
  await writeFile(join(folder, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  return { reference: `oci:${folder}:latest`, digest: manifest.digest };
}
