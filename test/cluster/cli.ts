/**
 * A cluster to play with, outside of the tests:
 *
 *   node test/cluster/cli.ts up DIR [0|1|2]        how many nodes; without any there is only the API server
 *   node test/cluster/cli.ts enter DIR[/NODE] COMMAND…   on a node, node1 unless named, with KUBECONFIG set
 *   node test/cluster/cli.ts load DIR IMAGE.tar…
 *   node test/cluster/cli.ts image DIR             builds the program's image, localhost/oci-connector:test, and loads it
 *   node test/cluster/cli.ts restart DIR[/NODE] PROGRAM [KILL]
 *   node test/cluster/cli.ts down DIR
 */
import { spawnSync } from "node:child_process";
import { mkdir, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { writeProgramImage } from "../../tools/image/write.ts";
import { endCluster, enterCommand, openCluster, startOwnCluster } from "./own-cluster.ts";

const [action, path = "", ...rest] = process.argv.slice(2);
const named = /^node\d$/.test(basename(path)) ? basename(path) : undefined;
const folder = resolve(named === undefined ? path : dirname(path));

const actions: Readonly<Record<string, () => Promise<void>>> = {
  async up() {
    await mkdir(folder, { recursive: true });
    const nodes = Number(rest[0] ?? 1);
    if (nodes !== 0 && nodes !== 1 && nodes !== 2) throw new Error("how many nodes: 0, 1 or 2");
    const { kubeconfig } = await startOwnCluster({ nodes, folder, outliveUs: true });
    process.stdout.write(`KUBECONFIG=${kubeconfig}\n`);
  },
  async enter() {
    const { argv, env } = await enterCommand(folder, named);
    const [command = "", ...args] = [...argv, ...rest];
    const { status } = spawnSync(command, args, {
      stdio: "inherit",
      env: { ...process.env, ...env },
    });
    process.exitCode = status ?? 1;
  },
  async load() {
    const cluster = await openCluster(folder);
    for (const image of rest) await cluster.load(resolve(image));
  },
  async image() {
    const archive = join(folder, "program.tar");
    writeProgramImage(archive, "localhost/oci-connector:test");
    await (await openCluster(folder)).load(archive);
    await rm(archive);
  },
  async restart() {
    const [program = "", signal] = rest;
    const options = {
      node: named,
      ...(signal === undefined ? {} : { signal: `SIG${signal}` as NodeJS.Signals }),
    };
    await (await openCluster(folder)).restart(program, options);
  },
  down: () => endCluster(folder),
};

const run = actions[action ?? ""];
if (run === undefined || path === "") {
  process.stderr.write("up, enter, load, image, restart or down, and the cluster's folder\n");
  process.exitCode = 2;
} else {
  await run();
}
