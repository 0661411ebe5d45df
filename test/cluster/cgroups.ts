import { readdir, rmdir } from "node:fs/promises";
import { join } from "node:path";

const root = "/sys/fs/cgroup";

/**
 * Removes the control groups of containers that were ended with their node: the kernel keeps them,
 * empty. One that has a process can't be removed, but one that a cluster beside this is just making can:
 * where there were no nodes, there is nothing to remove.
 */
export async function removeEmptyCgroups(): Promise<void> {
  const controllers = await readdir(root).catch(() => []);
  for (const controller of ["", ...controllers]) {
    await removeTree(join(root, controller, "k8s.io"));
  }
}

async function removeTree(folder: string): Promise<void> {
  for (const child of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
    if (child.isDirectory()) await removeTree(join(folder, child.name));
  }
  await rmdir(folder).catch(() => {});
}
