import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { basename, join } from "node:path";
import type { VolumeFiles } from "../connector/volume-files.ts";
import { unless } from "./os-error.ts";
import type { Access } from "./volume-access.ts";

/*
 * The files of a volume are swapped as a whole, as the kubelet does it for Secrets:
 *
 *   ..aB3xYz/config.json      one generation
 *   ..data -> ..aB3xYz        the one that counts, replaced by rename(2)
 *   config.json -> ..data/config.json
 *
 * So a file is always there and whole, and files that are read through one look at `..data` belong together.
 */
const currentLink = "..data";

/** The folder of the current generation; undefined where there is none. Where there is one, it is complete. */
export const findGeneration = (root: string): Promise<string | undefined> =>
  readlink(join(root, currentLink)).catch(unless(undefined, "ENOENT"));

/** A file of the current generation, undefined where there is none. */
export const readCurrent = (root: string, path: string): Promise<string | undefined> =>
  readFile(join(root, currentLink, path), "utf8").catch(unless(undefined, "ENOENT", "ENOTDIR"));

/**
 * Makes these the files of the volume.
 * The generation before stays until the next change, for readers that are on their way to it.
 * @returns false where they were so already, and nothing was written
 * @throws Error with `ENOSPC` where they don't fit; what was there before stays
 */
export async function writeGeneration(
  root: string,
  files: VolumeFiles,
  access: Access,
): Promise<boolean> {
  const current = await findGeneration(root);
  const links = new Set([...files.keys()].map(linkName).filter((name) => !isHidden(name)));
  if (current !== undefined && (await isSame(join(root, current), files))) {
    await placeLinks(root, links);
    await removeOtherLinks(root, links);
    return false;
  }
  const folder = await mkdtemp(`${root}/..`); // join() would go up
  try {
    await writeFiles(folder, files, access);
    // Links come before the swap, so that whoever sees `..data` knows that all is there.
    await placeLinks(root, links);
    const next = `${folder}${currentLink}`;
    await symlink(basename(folder), next);
    await rename(next, join(root, currentLink));
  } catch (error) {
    // What can't be removed now is removed after the next attempt.
    await removeGenerations(root, [current]).catch(() => undefined);
    throw error;
  }
  await removeOtherLinks(root, links);
  await removeGenerations(root, [current, basename(folder)]);
  return true;
}

const linkName = (path: string): string => path.split("/", 1)[0] ?? "";

/** Names of our own; a file's name can begin so, too, and is then seen through `..data` only. */
const isHidden = (name: string): boolean => name.startsWith("..");

async function isSame(folder: string, files: VolumeFiles): Promise<boolean> {
  const present = await readdir(folder, { recursive: true, withFileTypes: true });
  if (present.filter((entry) => !entry.isDirectory()).length !== files.size) return false;
  for (const [path, content] of files) {
    const text = await readFile(join(folder, path), "utf8").catch(
      unless(undefined, "ENOENT", "ENOTDIR", "EISDIR"),
    );
    if (text !== content) return false;
  }
  return true;
}

/** Modes and owner are set after the fact, since the process's umask takes part in the first ones. */
async function writeFiles(root: string, files: VolumeFiles, access: Access): Promise<void> {
  const group = access.group ?? 0;
  const adopt = async (folder: string): Promise<void> => {
    await chown(folder, 0, group);
    await chmod(folder, access.folderMode);
  };
  await adopt(root);
  for (const [path, content] of files) {
    for (const folder of foldersOf(path)) {
      const made = await mkdir(join(root, folder)).then(() => true, unless(false, "EEXIST"));
      if (made) await adopt(join(root, folder));
    }
    const file = join(root, path);
    await writeFile(file, content, { flag: "wx", mode: 0o400 });
    await chown(file, 0, group);
    await chmod(file, access.fileMode);
  }
}

/**
 * `a/b/c` → `a`, `a/b`
 * @throws TypeError for a path that leads out of its folder
 */
function foldersOf(path: string): readonly string[] {
  const parts = path.split("/");
  if (parts.some((part) => part === "" || part === "." || part === "..")) {
    throw new TypeError(`"${path}" is no path inside a volume`);
  }
  return parts.slice(0, -1).map((_, index) => parts.slice(0, index + 1).join("/"));
}

async function placeLinks(root: string, names: ReadonlySet<string>): Promise<void> {
  for (const name of names) {
    const target = `${currentLink}/${name}`;
    const present = await readlink(join(root, name)).catch(unless(undefined, "ENOENT", "EINVAL"));
    if (present === target) continue;
    await rm(join(root, name), { recursive: true, force: true });
    await symlink(target, join(root, name));
  }
}

async function removeOtherLinks(root: string, names: ReadonlySet<string>): Promise<void> {
  for (const name of await readdir(root)) {
    if (!isHidden(name) && !names.has(name)) await rm(join(root, name), { recursive: true });
  }
}

/** All but these, and what writers left that were killed. */
async function removeGenerations(
  root: string,
  kept: readonly (string | undefined)[],
): Promise<void> {
  for (const name of await readdir(root)) {
    if (isHidden(name) && name !== currentLink && !kept.includes(name)) {
      await rm(join(root, name), { recursive: true, force: true });
    }
  }
}
