/**
 * A node of a test cluster is a set of namespaces (network, mounts, processes) with a folder. The
 * kernel ends all that runs in it together with its first process, and takes its mounts, links and
 * addresses along, so that nothing of it can be left behind, however a test run ends.
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { endProcess, isAlive, type ProcessId, processIdOf } from "./process-id.ts";

export interface Node {
  readonly name: string;
  readonly folder: string;
  /** The first process of its namespaces. */
  readonly init: ProcessId;
}

/** bash reaps what it did not start, too; the kernel makes orphans children of the first process. */
const initScript = `
mount --make-rshared /
ip link set lo up
touch "$0"
while :; do sleep 1h & wait $!; done`;

/**
 * Makes a node with nothing in it.
 * @param dieWithParent ends it together with this process, also where that one is killed
 */
export async function createNode(
  name: string,
  folder: string,
  dieWithParent: boolean,
): Promise<Node> {
  await mkdir(folder, { recursive: true });
  const ready = join(folder, "ready");
  const [command = "", ...args] = [
    ...(dieWithParent ? dyingWithParent : []),
    "unshare",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--propagation",
    "private",
    "bash",
    "-euc",
    initScript,
    ready,
  ];
  const child = spawn(command, args, { cwd: folder, detached: true, stdio: "ignore" });
  child.unref();
  if (child.pid === undefined) throw new Error(`could not start ${command}`);
  while (!existsSync(ready)) {
    if (child.exitCode !== null) throw new Error(`${command} failed: are we root?`);
    await sleep(20);
  }
  const node: Node = { name, folder, init: await processIdOf(child.pid) };
  await writeFile(join(folder, "node.json"), JSON.stringify(node));
  return node;
}

/** Puts before a command: it is killed when the process that starts it ends. */
export const dyingWithParent: readonly string[] = ["setpriv", "--pdeathsig", "KILL"];

export async function readNode(folder: string): Promise<Node> {
  return JSON.parse(await readFile(join(folder, "node.json"), "utf8")) as Node;
}

/** The process that unshare started: it is the first of the new namespaces. */
export async function firstProcess({ init: { pid } }: Node): Promise<number> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  const [first] = children.trim().split(" ");
  if (!first) throw new Error("the node has ended");
  return Number(first);
}

/** Ends all that runs on the node: its first process is gone only when all others are. */
export async function endNode(node: Node): Promise<void> {
  if (!(await isAlive(node.init))) return;
  const first = await processIdOf(await firstProcess(node));
  for (const wrapper of await wrappersOf(first.pid)) await endProcess(wrapper, "SIGKILL");
  await endProcess(first, "SIGKILL");
  await endProcess(node.init, "SIGKILL");
}

/**
 * The processes outside of a node that wait for what they have started in it. nsenter stops together with its child, and
 * reaps nothing then, while the node's first process does not end before everything in it is reaped.
 */
async function wrappersOf(first: number): Promise<readonly ProcessId[]> {
  const numbers = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = numbers.map(async (pid) => {
    const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (!line.includes(`nsenter\0--target\0${first}\0`)) return undefined;
    return processIdOf(Number(pid)).catch(() => undefined);
  });
  return (await Promise.all(found)).filter((one) => one !== undefined);
}

/** Puts before a command: it runs on the node. */
export async function inside(node: Node): Promise<readonly string[]> {
  const target = await firstProcess(node);
  return ["nsenter", "--target", `${target}`, "--net", "--mount", "--pid", `--wd=${node.folder}`];
}
