import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { requirePrograms } from "../../tools/require-programs.ts";
import type { Stoppable } from "./cleanup.ts";
import { type Outcome, runProgram } from "./program.ts";
import { makeTempFolder } from "./temp-folder.ts";

export interface ClientRunOptions {
  /** Added to the client's own, isolated environment, such as `{https_proxy: …}`. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Milliseconds. */
  readonly timeout?: number;
}

/** Runs a client to its end. */
export type RunClient = (args: readonly string[], options?: ClientRunOptions) => Promise<Outcome>;

/**
 * Image tools that see nothing of the machine's own storage, configuration, credentials or proxies.
 * They keep images in a folder of their own, and take everything else from arguments and `env`.
 */
export interface Clients extends Stoppable {
  readonly skopeo: RunClient;
  readonly buildah: RunClient;
  /** Their HOME. Files that a test adds below `.config/containers` are read. */
  readonly home: string;
  /** A folder for whatever a test hands to them. */
  readonly folder: string;
  stop(): Promise<void>;
}

/** Prepares the tools, and installs those that are missing, which takes its time. */
export async function prepareClients(): Promise<Clients> {
  await requirePrograms(["skopeo", "buildah", "runc"]);
  const { path: folder, stop } = makeTempFolder("clients");
  const at = (name: string): string => join(folder, name);
  const home = at("home");
  const settings = join(home, ".config", "containers");
  await mkdir(join(settings, "registries.d"), { recursive: true });
  await mkdir(at("tmp"));
  await mkdir(at("run"));
  const policy = join(settings, "policy.json");
  await writeFile(policy, JSON.stringify({ default: [{ type: "insecureAcceptAnything" }] }));
  // One of their own, though empty, keeps them from reading the machine's.
  await writeFile(join(settings, "registries.conf"), "");
  // Without it they look for signatures below /var.
  await writeFile(
    join(settings, "registries.d", "default.yaml"),
    JSON.stringify({ "default-docker": { lookaside: `file://${at("signatures")}` } }),
  );
  // crun, which is taken where it is installed, refuses hybrid cgroups.
  await writeFile(
    at("containers.conf"),
    '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n',
  );
  const isolated = {
    HOME: home,
    TMPDIR: at("tmp"),
    XDG_RUNTIME_DIR: at("run"),
    CONTAINERS_CONF: at("containers.conf"),
    BUILDAH_ISOLATION: "chroot",
  };
  const skopeoFlags = ["--policy", policy, "--registries.d", join(settings, "registries.d")];
  const buildahFlags = ["--root", at("storage"), "--runroot", at("run"), "--storage-driver", "vfs"];
  const client =
    (command: string, flags: readonly string[]): RunClient =>
    (args, { env, ...options } = {}) =>
      runProgram(command, [...flags, ...args], { ...options, env: { ...isolated, ...env } });
  return {
    skopeo: client("skopeo", [...skopeoFlags, "--tmpdir", at("tmp")]),
    buildah: client("buildah", buildahFlags),
    home,
    folder,
    stop,
  };
}
