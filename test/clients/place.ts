import { existsSync } from "node:fs";
import { cp, mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { cleanup, type Stoppable } from "../support/cleanup.ts";
import { eventually } from "../support/eventually.ts";
import { type Outcome, runProgram, startProgram } from "../support/program.ts";
import type { Example, Operation, OtherOperation, Transport } from "./example.ts";
import type { RegistryView } from "./registry-view.ts";

/** Of the layers of images. */
export type Size = "small" | "large";

/** A folder in which one tool is run over one transport, with a volume of its own. */
export interface Place extends Stoppable {
  readonly example: Example;
  readonly transport: Transport;
  /** What names of repositories begin with, as the registry calls them. */
  readonly prefix: string;
  /** Texts that are others each time, and what to show in their place, in this order. */
  readonly names: Readonly<Record<string, string>>;
  /** The folder in which commands are run. */
  folder(size: Size): string;
  /** What the repositories are called in images: by the proxy's name, or by the registry's own. */
  image(repository: string, how: "proxied" | "own", size?: Size): string;
  /** Runs a step of the example to its end. */
  run(operation: Operation | OtherOperation, options?: RunOptions): Promise<Outcome>;
  /** Runs other commands after the example's setup. */
  sh(commands: string, options?: RunOptions): Promise<Outcome>;
  stop(): Promise<void>;
}

export interface RunOptions {
  readonly size?: Size;
  /** Another folder in place of the mounted volume. */
  readonly volume?: string;
}

export interface PlaceOptions {
  readonly example: Example;
  readonly transport: Transport;
  /** The connector's name. */
  readonly registry: string;
  readonly view: RegistryView;
  readonly prefix: string;
  readonly proxy: string;
  /** For everything that commands leave behind. */
  readonly tmp: string;
  /** Has OCI layouts, in a folder for each size. */
  readonly layouts: string;
  readonly variables: Readonly<Record<string, string>>;
  /** What is built into images of the large size. */
  readonly payload: Buffer;
  /** Told what commands have written. */
  readonly saw: (what: string, text: string) => void;
}

/** Mounts a volume as the example says, and starts the daemon where it has one. */
export async function openPlace(options: PlaceOptions): Promise<Place> {
  const { example, transport, registry, view, prefix, proxy, tmp } = options;
  const resources = cleanup();
  const volume = join(tmp, "volume");
  const folder = (size: Size): string => join(tmp, size);
  for (const size of ["small", "large"] as const) {
    await cp(example.folder, folder(size), { recursive: true });
    for (const layout of ["image", "index"]) {
      await symlink(join(options.layouts, size, layout), join(folder(size), layout));
    }
  }
  await writePayload(folder("large"), options.payload);
  const isolated = await isolate(tmp);
  const path = `namespaces/team-a/connectors/${registry}`;
  const named = (host: string, size: Size): string => `${host}/${prefix}/${size}`;
  const env = (size: Size, seen: string): Record<string, string> => ({
    ...options.variables,
    ...isolated,
    TMP: tmp,
    CONNECTOR: `team-a/${registry}`,
    VOLUME: seen,
    PROXY: proxy,
    IMAGES: named(`${proxy}/${path}`, size),
    REGISTRY: named(view.host, size),
  });
  const runIn = async (
    command: readonly [string, ...string[]],
    commands: string,
    { size = "small", volume: seen = volume }: { size?: Size; volume?: string } = {},
  ): Promise<Outcome> => {
    const [program, ...args] = command;
    const surroundings = { cwd: folder(size), env: env(size, seen), timeout: 180_000 };
    const setUp = example.commands("setup", transport) + commands;
    const outcome = await runProgram(program, [...args, setUp], surroundings);
    options.saw(`${example.name}: ${commands}`, outcome.stdout + outcome.stderr);
    return outcome;
  };
  const sh: Place["sh"] = (commands, runOptions) =>
    runIn(["unshare", ...apart], commands, runOptions);
  const place: Place = {
    example,
    transport,
    prefix,
    folder,
    sh,
    names: {
      [`${proxy}/${path}/${prefix}/small`]: "$IMAGES",
      [`${path}/${prefix}/small`]: "…",
      [proxy]: "$PROXY",
      [tmp]: "…",
    },
    image: (repository, how, size = "small") =>
      `${named(how === "own" ? view.host : `${proxy}/${path}`, size)}/${repository}:1`,
    run: (operation, runOptions) => sh(example.commands(operation, transport), runOptions),
    async stop() {
      await resources.stop();
      await rm(tmp, { recursive: true, force: true });
    },
  };
  try {
    // With mounts of its own, the command would not see the volume's.
    await succeed(runIn(["sh", "-euc"], example.commands("volume", transport)));
    resources.defer(() => sh("oci-connector unmount $VOLUME"));
    const daemon = example.commands("daemon", transport).trim();
    if (daemon !== "") {
      const [, socket = ""] = /\$TMP(\S+\.sock)/.exec(daemon) ?? [];
      const started = await startProgram("sh", ["-euc", daemon.replace(/[^\n]*$/, "exec $&")], {
        cwd: folder("small"),
        env: env("small", volume),
      });
      resources.add(started);
      await eventually(() => existsSync(tmp + socket), started.output, 30_000);
    }
    return place;
  } catch (error) {
    await place.stop();
    throw error;
  }
}

/** containers/image remembers for root, in a folder of the machine, which registry has which layer. */
const apart = [
  "--mount",
  "--propagation",
  "slave",
  "sh",
  "-euc",
  'mkdir -p /var/lib/containers; mount --bind "$TMP/containers" /var/lib/containers; exec sh -euc "$0"',
];

async function succeed(running: Promise<Outcome>): Promise<void> {
  const { status, stdout, stderr } = await running;
  if (status !== 0) throw new Error(stdout + stderr);
}

/** The larger payload takes the place of the example's own. */
async function writePayload(folder: string, payload: Buffer): Promise<void> {
  for (const file of ["payload", "kodata/payload"]) {
    if (existsSync(join(folder, file))) await writeFile(join(folder, file), payload);
  }
}

/** The registry that the machine's own settings have for names without one. It is none. */
export const searched = "search.test";

/** What keeps tools away from the machine's own images, logins and settings. */
async function isolate(tmp: string): Promise<Readonly<Record<string, string>>> {
  const home = join(tmp, "home");
  const settings = join(home, ".config", "containers");
  const files: Readonly<Record<string, string>> = {
    [join(settings, "policy.json")]: '{"default": [{"type": "insecureAcceptAnything"}]}',
    [join(settings, "registries.conf")]: `unqualified-search-registries = ["${searched}"]\n`,
    [join(settings, "registries.d", "default.yaml")]: "{}",
    // crun, which is taken where it is installed, refuses hybrid cgroups.
    [join(settings, "containers.conf")]:
      '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n',
    [join(settings, "storage.conf")]:
      `[storage]\ndriver = "vfs"\ngraphroot = "${tmp}/images"\nrunroot = "${tmp}/run"\n`,
  };
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
  }
  await mkdir(join(tmp, "run"));
  await mkdir(join(tmp, "containers"));
  return {
    HOME: home,
    TMPDIR: tmp,
    XDG_RUNTIME_DIR: join(tmp, "run"),
    CONTAINERS_CONF: join(settings, "containers.conf"),
    CONTAINERS_STORAGE_CONF: join(settings, "storage.conf"),
    BUILDAH_ISOLATION: "chroot",
  };
}
