import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { missingPrograms } from "./require-programs.ts";

/** Where the controller for memory is: in the old cgroup tree, and in the unified one. */
const cgroupFolders = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"];

/** Why this machine can run no nodes of a Kubernetes cluster, in one sentence; undefined where it can. */
export function whyNoCluster(): string | undefined {
  const isRoot = process.getuid?.() === 0;
  if (!isRoot || isInUserNamespace()) return "containers need the machine's root";
  const namespaces = ["--net", "--mount", "--pid", "--fork", "--mount-proc", "true"];
  const { status, stderr, error } = spawnSync("unshare", namespaces, { encoding: "utf8" });
  if (status !== 0) return `no namespaces can be made (${(error?.message ?? stderr).trim()})`;
  if (missingPrograms(["go"]).length > 0) return "there is no Go to build Kubernetes with";
  return whyNoCgroup();
}

/** user_namespaces(7): outside of one, every user is itself. */
const isInUserNamespace = (): boolean =>
  !/^\s*0\s+0\s+4294967295\s*$/.test(readFileSync("/proc/self/uid_map", "utf8"));

function whyNoCgroup(): string | undefined {
  const folder = cgroupFolders.find((path) => existsSync(path));
  if (folder === undefined) return "there are no cgroups in /sys/fs/cgroup";
  const cgroup = join(folder, `oci-connector-${process.pid}`);
  try {
    mkdirSync(cgroup);
    rmdirSync(cgroup);
    return undefined;
  } catch (cause) {
    return `no cgroup can be made (${cause instanceof Error ? cause.message : cause})`;
  }
}
