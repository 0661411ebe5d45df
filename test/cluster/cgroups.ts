import { readdir, rmdir } from "node:fs/promises";
import { join } from "node:path";

const root = "/sys/fs/cgroup";

/**
 * Removes the control groups of containers that were ended with their node: the kernel keeps them,
 * empty. One that still has a process can't be removed, so a cluster beside this one loses nothing.
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
