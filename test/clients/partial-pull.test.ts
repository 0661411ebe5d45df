/** Pulls of what is missing alone, by the library of podman 5 and buildah 1.39: many ranges of a layer in one request. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import { clientOf } from "../proxy/test-client.ts";
import { startTestProxy, type TestProxy } from "../proxy/test-proxy.ts";
import { removeMounts } from "../roles/mount-table.ts";
import { cleanup } from "../support/cleanup.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake-registry.ts";
import type { Exchange } from "../support/fake-registry-exchange.ts";
import { noise, writeTestImage } from "../support/oci-image.ts";
import { type Outcome, runProgram } from "../support/program.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { buildPartialPull } from "./client-programs.ts";

describe("partial pulls (zstd:chunked), by the library of podman 5", function () {
  this.timeout(120_000);
  const resources = cleanup();
  const undo = cleanup();
  let program: string;
  let folder: string;
  let registry: FakeRegistry;
  let storage: FakeRegistry;
  let proxy: TestProxy;

  before(async function () {
    this.timeout(60 * 60_000); // building the program
    program = await buildPartialPull();
    folder = resources.add(makeTempFolder("partial-pull")).path;
    resources.defer(() => removeMounts(folder));
    registry = resources.add(await startFakeRegistry({ auth: "bearer" }));
    storage = resources.add(await startFakeRegistry());
    proxy = resources.add(await startTestProxy());
    const credential = { username: "alice", password: "secret-of-alice" };
    proxy.connect("harbor", registry.url, { credential });
    // Two images with one layer of 200 files, of which every other one differs.
    for (const version of ["1", "2"]) {
      const files = Object.fromEntries(
        Array.from({ length: 200 }, (_, index) => {
          const seed = index % 2 === 0 ? `file ${index}` : `file ${index} of ${version}`;
          return [`file-${String(index).padStart(3, "0")}`, noise(seed, 8_000)];
        }),
      );
      await writeTestImage(join(folder, version), { layerSizes: [], files });
      succeeds(await run("push", join(folder, version), `${image()}:${version}`));
    }
  });
  afterEach(undo.stop);
  after(resources.stop);

  const image = (): string => `${proxy.http}/namespaces/team-a/connectors/harbor/app`;

  async function run(...args: readonly string[]): Promise<Outcome> {
    const authfile = join(folder, "auth.json");
    const { authorization } = clientOf(proxy, "harbor");
    const auths = { [proxy.http]: { auth: authorization.replace("Basic ", "") } };
    await writeFile(authfile, JSON.stringify({ auths }));
    const env = { REGISTRY_AUTH_FILE: authfile, HOME: folder, TMPDIR: folder };
    return runProgram(program, args, { env, timeout: 60_000 });
  }

  /** A storage that sends at most so many ranges in one response, and refuses more. */
  function storeBlobs(maxRanges: number, status = 400): number[] {
    const asked: number[] = [];
    undo.defer(
      registry.on("* blob", ({ target, send }) =>
        send(307, { Location: `${storage.url}/bucket/${target.reference}?sig=secret-signature` }),
      ),
    );
    undo.defer(
      storage.on("GET /bucket/*", (exchange) => {
        const digest = exchange.path.split("/").at(-1) ?? "";
        const blob = registry.repository("app").blobs.get(digest) ?? Buffer.alloc(0);
        const ranges = rangesIn(exchange);
        asked.push(ranges.length);
        if (ranges.length > maxRanges) {
          exchange.send(status, {}, Buffer.from("<Error>secret-signature</Error>"));
        } else sendRanges(exchange, blob, ranges);
      }),
    );
    return asked;
  }

  async function pullBoth(name: string): Promise<void> {
    const store = join(folder, name);
    await mkdir(store);
    succeeds(await run("pull", `${image()}:1`, store));
    succeeds(await run("pull", `${image()}:2`, store));
  }

  it("request many ranges at once, and get them", async () => {
    const asked = storeBlobs(1_000);
    await pullBoth("many");
    expect(Math.max(...asked)).to.be.above(50);
  });

  it("request fewer ranges where the registry's storage answers 400 to many", async () => {
    const asked = storeBlobs(20);
    await pullBoth("fewer");
    expect(Math.max(...asked)).to.be.above(50);
    expect(asked.some((count) => count > 1 && count <= 20)).to.equal(true);
  });
});

type Range = readonly [first: number, last: number];

function rangesIn({ request }: Exchange): readonly Range[] {
  const { range = "" } = request.headers;
  return [...range.matchAll(/(\d+)-(\d+)/g)].map(([, first, last]) => [
    Number(first),
    Number(last),
  ]);
}

/** Sends ranges as RFC 9110, section 14.6, has them. */
function sendRanges({ send }: Exchange, blob: Buffer, ranges: readonly Range[]): void {
  const [one, ...others] = ranges;
  const rangeOf = ([first, last]: Range): string => `bytes ${first}-${last}/${blob.length}`;
  const partOf = ([first, last]: Range): Buffer => blob.subarray(first, last + 1);
  if (one === undefined) send(200, {}, blob);
  else if (others.length === 0) {
    const type = "application/octet-stream";
    send(206, { "Content-Type": type, "Content-Range": rangeOf(one) }, partOf(one));
  } else {
    const parts = ranges.flatMap((range) => [
      Buffer.from(`\r\n--part\r\nContent-Range: ${rangeOf(range)}\r\n\r\n`),
      partOf(range),
    ]);
    const body = Buffer.concat([...parts, Buffer.from("\r\n--part--\r\n")]);
    send(206, { "Content-Type": "multipart/byteranges; boundary=part" }, body);
  }
}

function succeeds({ status, stdout, stderr }: Outcome): void {
  expect(status, stdout + stderr).to.equal(0);
}
