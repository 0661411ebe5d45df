/** A machine on which tools have a mounted volume and nothing else, and the registries behind it. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { missingPrograms, requirePrograms } from "../../tools/require-programs.ts";
import { startCiHost } from "../roles/ci-host.ts";
import { connectorYaml } from "../roles/manifests.ts";
import { removeMounts } from "../roles/mount-table.ts";
import { type Cleanup, cleanup, type Stoppable } from "../support/cleanup.ts";
import { type DockerRegistry, startDockerRegistry } from "../support/docker-registry.ts";
import { go } from "../support/go-programs.ts";
import { startProgram, systemPath } from "../support/program.ts";
import type { Finding } from "../support/secrets-search.ts";
import { makeTempFolder } from "../support/temp-folder.ts";
import { buildClientPrograms } from "./client-programs.ts";
import type { Example, Transport } from "./example.ts";
import { type Fixtures, largeFixtures, smallFixtures, writeLayout } from "./fixtures.ts";
import { openPlace, type Place, type Size } from "./place.ts";
import { type RegistryView, viewRegistry } from "./registry-view.ts";

/** The registries, each behind the connector of its name in the namespace `team-a`. */
export type RegistryName = "docker-registry" | "distribution" | "oci-1-1";

export interface Workbench extends Stoppable {
  /** Registries that the proxy alone can find, each behind the connector of its name in the namespace `team-a`. */
  readonly named: Readonly<Record<"base" | "target", RegistryView>>;
  readonly registries: Readonly<Record<RegistryName, RegistryView>>;
  readonly fixtures: Readonly<Record<Size, Fixtures>>;
  /** Digests of the layers that docker-registry has mounted into repositories whose names begin so. */
  mounted(prefix: string): readonly string[];
  /** What docker-registry was asked of such repositories past the proxy, by tools: request lines. */
  askedPastTheProxy(prefix: string): readonly string[];
  /** Secrets of the registries, or of tokens that were given out, that a tool has shown. */
  leaks(): Promise<readonly Finding[]>;
  /** A folder for one tool and one transport, with a volume that is mounted as the example says. */
  place(example: Example, options: WhichPlace): Promise<Place>;
  stop(): Promise<void>;
}

export interface WhichPlace {
  readonly transport: Transport;
  /** docker-registry unless said otherwise. */
  readonly registry?: RegistryName;
  /** Whether the system's programs come before ours. */
  readonly ofTheSystem?: boolean;
}

const proxyAgent = "oci-connector";

const names: string = fileURLToPath(new URL("../roles/names-of-test.ts", import.meta.url));
const main: string = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

/** Starts registries and the standalone process, and installs or builds every tool that is missing. */
export async function startWorkbench(): Promise<Workbench> {
  await requirePrograms([
    "skopeo",
    "buildah",
    "podman",
    "containerd",
    "runc",
    "mount",
    "tar",
    "unshare",
  ]);
  const programs = await buildClientPrograms();
  const resources = cleanup();
  try {
    return await start(programs, resources);
  } catch (error) {
    await resources.stop();
    throw error;
  }
}

async function start(programs: string, resources: Cleanup): Promise<Workbench> {
  const folder = resources.add(makeTempFolder("clients")).path;
  resources.defer(() => removeMounts(folder));
  const old = resources.add(await startDockerRegistry({ auth: "token", accessLog: true }));
  const distribution = resources.add(
    await startDockerRegistry({ auth: "token", program: join(programs, "registry") }),
  );
  const memory = resources.add(await startProgram(join(programs, "oci-registry"), []));
  const [, ociHost = ""] = await memory.waitFor(/listening on (\S+)/);
  const oci = { host: ociHost, url: `http://${ociHost}` };
  const own = { auth: "htpasswd", tls: true } as const;
  const base = resources.add(await startDockerRegistry({ ...own, hostname: "base.test" }));
  const target = resources.add(await startDockerRegistry({ ...own, hostname: "target.test" }));
  const host = resources.add(await startCiHost({ nodeArgs: [`--import=${names}`] }));
  const connector = (name: string, { url, username, password, tls }: DockerRegistry): string =>
    connectorYaml({
      ref: `team-a/${name}`,
      address: url,
      login: { username, password },
      ...(tls && { ca: tls.ca }),
    });
  const connectors = [
    connector("docker-registry", old),
    connector("distribution", distribution),
    connector("base", base),
    connector("target", target),
    connectorYaml({ ref: "team-a/oci-1-1", address: oci.url }),
  ];
  await host.write("registries.yaml", connectors.join("\n---\n"));
  await host.waitForLog("connectors were added, removed or changed", "team-a/oci-1-1");

  const bin = join(folder, "bin");
  await mkdir(bin);
  const command = `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@" --state '${host.state}'\n`;
  await writeFile(join(bin, "oci-connector"), command, { mode: 0o755 });
  // Its plugin is a program of its own, and all that is run of it here.
  await writeFile(join(bin, "docker"), '#!/bin/sh\nexec "$@"\n', { mode: 0o755 });

  const registries = {
    "docker-registry": viewRegistry(old),
    distribution: viewRegistry(distribution),
    "oci-1-1": viewRegistry(oci),
  };
  const named = { base: viewRegistry(base), target: viewRegistry(target) };
  const fixtures = { small: smallFixtures(), large: largeFixtures() };
  for (const size of ["small", "large"] as const) {
    const { image, index, base } = fixtures[size];
    await writeLayout(join(folder, size, "image"), image);
    await writeLayout(join(folder, size, "index"), index);
    await registries["docker-registry"].put(`fixtures/${size}`, "base", base);
  }

  const paths = [programs, await goFolder(), systemPath];
  const environment = {
    // ko compiles with the machine's own cache.
    GOCACHE: (await go(folder, ["env", "GOCACHE"])).trim(),
    GOTOOLCHAIN: "local",
  };
  let count = 0;
  return {
    named,
    registries,
    fixtures,
    mounted: (prefix) => {
      const lines = old.output().matchAll(/"POST \/v2\/(\S+)\/blobs\/uploads\/\?(\S+) \S+" 201 /g);
      return [...lines]
        .filter(([, repository]) => repository?.startsWith(prefix))
        .flatMap(([, , query]) => new URLSearchParams(query).get("mount") ?? []);
    },
    askedPastTheProxy: (prefix) => {
      // The proxy puts its name before the tool's, and this process has none.
      const lines = old.output().matchAll(/"([A-Z]+ \/v2\/(\S+) \S+)" \d+ \d+ "[^"]*" "([^"]+)"/g);
      return [...lines]
        .filter(
          ([, , path = "", agent = ""]) => path.startsWith(prefix) && !agent.startsWith(proxyAgent),
        )
        .map(([, request = ""]) => request);
    },
    async place(example, { transport, registry = "docker-registry", ofTheSystem = false }) {
      const view = registries[registry];
      const prefix = `case-${++count}`;
      const proxy = transport === "tls" ? host.https : host.http;
      const place = { example, transport, registry, view, prefix, proxy };
      const tmp = join(folder, prefix);
      const { payload } = fixtures.large;
      const PATH = [bin, ...(ofTheSystem ? paths.toReversed() : paths)].join(":");
      const variables = {
        ...environment,
        PATH,
        BASE: `${named.base.host}/${prefix}`,
        TARGET: `${named.target.host}/${prefix}`,
      };
      const { saw } = host;
      return openPlace({ ...place, tmp, layouts: folder, variables, payload, saw });
    },
    leaks() {
      for (const [name, { password, tokens }] of Object.entries({
        old,
        distribution,
        base,
        target,
      })) {
        host.keepSecret(`password of ${name}`, password);
        for (const [index, token] of (tokens?.given ?? []).entries()) {
          host.keepSecret(`token ${index} of ${name}`, token);
        }
      }
      return host.leaks();
    },
    stop: resources.stop,
  };
}

/** Where `go` is: ko runs it. */
async function goFolder(): Promise<string> {
  if (missingPrograms(["go"]).length > 0) return "";
  return join((await go("/", ["env", "GOROOT"])).trim(), "bin");
}
