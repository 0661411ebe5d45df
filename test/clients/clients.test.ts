/** The tools of the field, each by the commands of its example, with a mounted volume and nothing else. */
import { readFileSync } from "node:fs";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { cleanup } from "../support/cleanup.ts";
import type { Outcome } from "../support/program.ts";
import {
  type Example,
  type Operation,
  type OtherOperation,
  readExample,
  type Transport,
  transports,
} from "./example.ts";
import { diffIdsOf } from "./fixtures.ts";
import { testForwardProxy } from "./forward-proxy.ts";
import { type Place, type Size, searched } from "./place.ts";
import { type Achievement, type Result, renderReport } from "./report.ts";
import { type Tool, tools } from "./tools.ts";
import { type RegistryName, startWorkbench, type Workbench } from "./workbench.ts";

const oneRegistry: readonly RegistryName[] = ["docker-registry"];

describe("the clients of docs/clients.md", function () {
  this.timeout(240_000);
  const resources = cleanup();
  let bench: Workbench;

  before(async function () {
    this.timeout(60 * 60_000); // building the programs
    bench = resources.add(await startWorkbench());
  });
  after(resources.stop);

  const results = new Map<Tool, Result>();
  for (const tool of tools) {
    const example = readExample(tool.name);
    const result = { version: "", achieved: new Map(), refusal: "" };
    results.set(tool, result);
    for (const transport of transports) {
      if (example.commands("volume", transport) === "") continue;
      testTool(tool, example, transport, () => bench, result);
    }
    testForwardProxy(tool, () => bench, result);
  }

  describe("all of them", () => {
    it("were shown no login of a registry, and no token of its own", async () => {
      expect(await bench.leaks()).to.deep.equal([]);
    });
  });

  describe("docs/clients.md", () => {
    it("says what was seen here", async function () {
      const isWhole = [...results.values()].every(({ refusal }) => refusal !== "");
      const [, system = ""] =
        /^PRETTY_NAME="(.*)"$/m.exec(readFileSync("/etc/os-release", "utf8")) ?? [];
      const writes = process.env.WRITE_DOCS !== undefined;
      // Some tools were not run, or are those of another system.
      if (!isWhole || !(writes || (await readFile(docs, "utf8")).includes(system)))
        return this.skip();
      const report = renderReport(results, system);
      if (writes) await writeFile(docs, report);
      const advice = "WRITE_DOCS=1 npm run test:clients writes docs/clients.md anew";
      expect(await readFile(docs, "utf8"), advice).to.equal(report);
    });
  });
});

const docs = fileURLToPath(new URL("../../docs/clients.md", import.meta.url));

/** A result that is being found. */
interface OpenResult extends Result {
  version: string;
  readonly achieved: Map<Achievement, Set<Transport>>;
  refusal: string;
}

function testTool(
  tool: Tool,
  example: Example,
  transport: Transport,
  workbench: () => Workbench,
  result: OpenResult,
): void {
  const name = tool.ofTheSystem ? `${tool.name} of the system` : tool.name;
  describe(`${name}, ${transport === "tls" ? "over verified TLS" : "over HTTP"}`, () => {
    const resources = cleanup();
    const { tag = "1", refusedBy = "pull" } = tool;
    let bench: Workbench;
    let place: Place;

    before(async () => {
      bench = workbench();
      place = resources.add(await bench.place(example, { transport, ...tool }));
      await seed(bench, place, "docker-registry");
      result.version = await tool.version(place);
    });
    after(resources.stop);

    const does = (operation: Operation): boolean => example.commands(operation, transport) !== "";
    const can = (
      achievement: Exclude<Achievement, "forward" | OtherOperation>,
      claim: string,
      test: () => Promise<void>,
    ): void => {
      if (achievement !== "large-layers" && !does(achievement)) return;
      it(claim, async () => {
        await test();
        const over = result.achieved.get(achievement) ?? new Set();
        result.achieved.set(achievement, over.add(transport));
      });
    };
    const repository = (name: string, size: Size = "small"): string =>
      `${place.prefix}/${size}/${name}`;
    const stored = (name: string, size?: Size, reference = tag) =>
      bench.registries["docker-registry"].read(repository(name, size), reference);

    async function push(size: Size): Promise<void> {
      const outcome = await place.run("push", { size });
      succeeds(outcome);
      const { digest, diffIds } = await stored("app", size);
      const { image, base } = bench.fixtures[size];
      if (tool.keepsDigests) expect(digest).to.equal(image.manifest.digest);
      else expect(outcome.stdout + outcome.stderr).to.include(digest);
      if (does("mount") && !tool.keepsDigests) expect(diffIds).to.include.members(diffIdsOf(base));
    }

    async function pull(size: Size, how: "proxied" | "own" = "proxied"): Promise<void> {
      succeeds(await place.run(how === "own" ? "pull-own-name" : "pull", { size }));
      const [name, image] =
        how === "own"
          ? (["mirrored", bench.fixtures[size].mirrored] as const)
          : (["base", bench.fixtures[size].base] as const);
      const registry = bench.registries["docker-registry"];
      await tool.expectPulled?.({
        place,
        size,
        image,
        name: place.image(name, how, size),
        how,
        registry,
      });
    }

    can("push", "pushes", () => push("small"));
    can("pull", "pulls", () => pull("small"));

    can("index", "pushes an image for several platforms", async () => {
      const outcome = await place.run("index");
      succeeds(outcome);
      const { digest, platforms } = await stored("index");
      expect(platforms).to.include.members(["linux/amd64", "linux/arm64"]);
      if (tool.keepsDigests) expect(digest).to.equal(bench.fixtures.small.index.manifest.digest);
      else expect(outcome.stdout + outcome.stderr).to.include(digest);
    });

    can("mount", "mounts layers from one repository into another", async () => {
      succeeds(await place.run("mount"));
      const into = tool.mountsInto ?? "copy";
      const { layers } = await stored(into);
      const { base } = bench.fixtures.small;
      const expected = into === "copy" ? layers : base.layers.map(({ digest }) => digest);
      expect(bench.mounted(repository(into))).to.include.members([...expected]);
    });

    can("cache", "keeps a cache in the registry", async () => {
      succeeds(await place.run("cache"));
      expect((await stored("cache")).layers).not.to.deep.equal([]);
      expect((await stored("app", "small", "2")).layers).not.to.deep.equal([]);
    });

    for (const name of ["docker-registry", "distribution", "oci-1-1"] as const) {
      can("referrer", `attaches an artifact to an image and finds it again, ${name}`, async () => {
        const place = resources.add(await bench.place(example, { transport, registry: name }));
        await seed(bench, place, name);
        const { stdout, ...outcome } = await place.run("referrer");
        succeeds({ stdout, ...outcome });
        const { digest } = bench.fixtures.small.base.manifest;
        const referrers = await bench.registries[name].referrers(
          `${place.prefix}/small/base`,
          digest,
        );
        expect(referrers).to.have.length(1);
        expect(referrers[0]).to.include({ artifactType: "application/vnd.example.sbom" });
        expect(stdout).to.include(referrers[0]?.digest);
      });
    }

    can("pull-own-name", "pulls an image by its own name", () => pull("small", "own"));

    can("push-own-name", "pushes an image by its own name", async () => {
      succeeds(await place.run("push-own-name"));
      const { digest } = await stored("pushed");
      expect(digest).to.equal(bench.fixtures.small.image.manifest.digest);
    });

    can("pull-own-name", "asks the proxy alone for images by their own name", async () => {
      const missing = example.commands("pull-own-name", transport).replace("mirrored:1", "none:1");
      expect((await place.sh(missing)).status).not.to.equal(0);
      await bench.registries["docker-registry"].read(repository("base"), "1");
      const asked = bench.askedPastTheProxy(place.prefix);
      if (tool.asksTheRegistryItself) expect(asked).not.to.deep.equal([]);
      else expect(asked).to.deep.equal([]);
    });

    if (tool.hasLargeLayers) {
      can("large-layers", "pushes and pulls layers of 200 MiB", async () => {
        const { base } = bench.fixtures.large;
        await bench.registries["docker-registry"].put(
          ...([repository("base", "large"), "1", base, "fixtures/large"] as const),
        );
        await push("large");
        await pull("large");
      });
    }

    testOthers(tool, example, transport, workbench, result);

    if (tool.searchesRegistries) {
      it("keeps the machine's search registries", async () => {
        const { status, stdout, stderr } = await place.sh(`${tool.name} pull none:1`);
        expect(status).not.to.equal(0);
        expect(stdout + stderr).to.include(`${searched}/none`);
      });
    }

    it("is refused without the volume's login", async () => {
      const volume = await copyVolume("without-login");
      await removeLogins(volume);
      const said = refusalIn(await place.run(refusedBy, { volume }), place);
      if (transport === "tls" || result.refusal === "") result.refusal = said;
    });

    it("is refused with a copy of the volume, when that is unmounted", async () => {
      const volume = await copyVolume("copy");
      succeeds(await place.run(refusedBy, { volume }));
      await rm(join(place.folder("small"), "pulled"), { recursive: true, force: true });
      succeeds(await place.sh("oci-connector unmount $VOLUME"));
      refusalIn(await place.run(refusedBy, { volume }), place);
    });

    async function copyVolume(name: string): Promise<string> {
      succeeds(await place.sh(`cp -rL $VOLUME/..data $TMP/${name}`));
      return join(place.folder("small"), "..", name);
    }
  });
}

/** What one tool does beside what all of them do. */
function testOthers(
  tool: Tool,
  example: Example,
  transport: Transport,
  workbench: () => Workbench,
  { achieved }: OpenResult,
): void {
  const resources = cleanup();
  after(resources.stop);
  for (const { operation, what, registries = oneRegistry, expect: check } of tool.others ?? []) {
    if (example.commands(operation, transport) === "") continue;
    for (const name of registries) {
      it(`${what} (${name})`, async () => {
        const bench = workbench();
        const place = resources.add(await bench.place(example, { transport, registry: name }));
        await seed(bench, place, name);
        const outcome = await place.run(operation);
        succeeds(outcome);
        const { stdout } = outcome;
        const registry = bench.registries[name];
        const repository = (repositoryName: string): string =>
          `${place.prefix}/small/${repositoryName}`;
        await check({ place, fixtures: bench.fixtures.small, registry, stdout, repository });
        achieved.set(operation, (achieved.get(operation) ?? new Set()).add(transport));
      });
    }
  }
}

/** Puts into a registry what is to be pulled from it. */
async function seed(bench: Workbench, { prefix }: Place, registry: RegistryName): Promise<void> {
  const { put } = bench.registries[registry];
  const { base, mirrored, platforms } = bench.fixtures.small;
  await put(`${prefix}/small/base`, "1", base);
  await put(`${prefix}/small/mirrored`, "1", mirrored);
  await put(`${prefix}/small/platforms`, "1", platforms);
}

/** Everything else of a volume may be known to everybody. */
async function removeLogins(volume: string): Promise<void> {
  for (const name of await readdir(volume, { recursive: true })) {
    const path = join(volume, name);
    if (name === "config.json") await writeFile(path, '{"auths": {}}');
    if (/token$|proxy$|\.env$/.test(name)) await rm(path);
    if (name.endsWith("hosts.toml")) {
      const text = await readFile(path, "utf8");
      await writeFile(
        path,
        text.replace(/^ *\[host.*header\]\n *authorization = \[[^\]]*\]$/gm, ""),
      );
    }
  }
}

/** The line in which a tool says that it may not, without what is another each time. */
function refusalIn({ status, stdout, stderr }: Outcome, { names }: Place): string {
  expect(status).not.to.equal(0);
  const lines = (stdout + stderr).split("\n");
  const line = lines.findLast((line) =>
    /unauthorized|no basic auth|credential not found/i.test(line),
  );
  expect(line, stdout + stderr).not.to.equal(undefined);
  let text = line ?? "";
  for (const [found, name] of Object.entries(names)) text = text.replaceAll(found, name);
  // Tools that write structured logs have the message in it.
  return /msg="(.*)"$/.exec(text)?.[1]?.replaceAll('\\"', '"') ?? text;
}

function succeeds({ status, stdout, stderr }: Outcome): void {
  expect(status, stdout + stderr).to.equal(0);
}
