import { join } from "node:path";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import { startDockerRegistry } from "../support/docker-registry.ts";
import { writeTestImage } from "../support/oci-image.ts";
import { prepareImageClient } from "./image-client.ts";
import { startRelay } from "./relay.ts";
import { startTestProxy } from "./test-proxy.ts";

/**
 * Takes minutes, so it runs when it is asked for:
 *
 *     SLOW_PUSH=1 npx mocha --spec test/proxy/slow-push.test.ts
 *
 * docker-registry accepts tokens for 60 s after their end, so the push takes longer than both.
 */
const isWanted = process.env.SLOW_PUSH !== undefined;
const megabyte = 1_000_000;

(isWanted ? describe : describe.skip)("a push of 1 GB that outlasts its registry's tokens", () => {
  const resources = cleanup();
  after(resources.stop);

  it("succeeds", async () => {
    const client = resources.add(await prepareImageClient());
    const registry = resources.add(await startDockerRegistry({ auth: "token" }));
    const proxy = resources.add(await startTestProxy());
    const { username, password, url, tokens } = registry;
    if (tokens) tokens.lifetime = 60;
    proxy.connect("slow", url, { credential: { username, password } });
    const relay = resources.add(
      await startRelay({ to: proxy.https, bytesPerSecond: 5 * megabyte }),
    );
    const layerSizes = [1000 * megabyte, 1000];
    const image = await writeTestImage(join(client.folder, "image"), { layerSizes });
    const access = await client.access(proxy, "slow", { scheme: "https", host: relay.host });
    const start = performance.now();
    const pushed = await client.skopeo(
      [
        ...["copy", ...client.login(access, "dest-"), image.reference],
        `docker://${access.prefix}/app:1`,
      ],
      { timeout: 600_000 },
    );
    expect(pushed.status).to.equal(0, pushed.stderr);
    expect(performance.now() - start).to.be.above(150_000);
    const inspected = await client.skopeo([
      ...["inspect", ...client.login(access), "--format", "{{.Digest}}"],
      `docker://${access.prefix}/app:1`,
    ]);
    expect(inspected.stdout.trim()).to.equal(image.manifest.digest);
    const pushes = tokens?.requests.filter(({ url: asked }) => asked.search.includes("push"));
    expect(pushes?.length).to.be.above(1);
  }).timeout(900_000);
});
