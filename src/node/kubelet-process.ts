/** Finds the kubelet among the host's processes. */
import { basename, join } from "node:path";
import { unless } from "../error-code.ts";
import type { NodeFiles } from "./node-file.ts";

/** A process of the host. A later one may have the same number, but not the same start. */
export interface HostProcess {
  readonly pid: number;
  /** When it was started, in clock ticks since the boot. */
  readonly startedAt: number;
  /** The same in milliseconds since 1970, give or take a second. */
  readonly startedAtMs: number;
}

/** Linux tells programs of times in hundredths of a second, on every architecture that Node.js runs on. */
const clockTickMs = 10;

/** Processes in containers have one of these above them: what their tenants call them says nothing. */
const containerParent = /^(containerd-shim|conmon|runc)/;

/**
 * Finds the process of the host in which the kubelet runs: the oldest of its name that is in no container.
 * @param proc `/proc`, with the processes of the host
 * @param name what its program is called: `kubelet`, `k3s`
 */
export async function findHostProcess(
  files: Pick<NodeFiles, "readdir" | "readFile">,
  proc: string,
  name: string,
): Promise<HostProcess | undefined> {
  const pids = (await files.readdir(proc)).filter((entry) => /^\d+$/.test(entry));
  const [, bootSeconds] = /^btime (\d+)$/m.exec(await readProc(files, join(proc, "stat"))) ?? [];
  const found: HostProcess[] = [];
  for (const pid of pids) {
    const commandLine = await readProc(files, join(proc, pid, "cmdline"));
    if (basename(commandLine.split("\0", 1)[0] ?? "") !== name) continue;
    if (await isInContainer(files, proc, pid)) continue;
    const { startedAt } = await statOf(files, proc, pid);
    const startedAtMs = Number(bootSeconds) * 1000 + startedAt * clockTickMs;
    if (startedAt > 0) found.push({ pid: Number(pid), startedAt, startedAtMs });
  }
  return found.toSorted((one, other) => one.startedAt - other.startedAt)[0];
}

async function isInContainer(
  files: Pick<NodeFiles, "readFile">,
  proc: string,
  pid: string,
): Promise<boolean> {
  let { parent } = await statOf(files, proc, pid);
  while (parent > 1) {
    const above = await statOf(files, proc, `${parent}`);
    if (containerParent.test(above.command)) return true;
    parent = above.parent;
  }
  return false;
}

interface ProcessStat {
  readonly command: string;
  readonly parent: number;
  readonly startedAt: number;
}

/** proc_pid_stat(5): the command, in parentheses, may have blanks and parentheses of its own. All is 0 once it has ended. */
async function statOf(
  files: Pick<NodeFiles, "readFile">,
  proc: string,
  pid: string,
): Promise<ProcessStat> {
  const text = await readProc(files, join(proc, pid, "stat"));
  const end = text.lastIndexOf(")");
  const fields = text.slice(end + 2).split(" ");
  return {
    command: text.slice(text.indexOf("(") + 1, end),
    parent: Number(fields[1] ?? 0),
    startedAt: Number(fields[19] ?? 0),
  };
}

/** @returns nothing where the process has ended */
const readProc = (files: Pick<NodeFiles, "readFile">, path: string): Promise<string> =>
  files.readFile(path, "utf8").catch(unless("", "ENOENT", "ESRCH"));
