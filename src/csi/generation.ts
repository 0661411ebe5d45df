import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import type { VolumeFiles } from "../connector/volume-files.ts";
import { attempt, unless } from "../error-code.ts";
import type { FileAccess } from "./volume-mounts.ts";

/*
 * The files of a volume are swapped as a whole, as the kubelet does it for Secrets:
 *
 *   ..aB3xYz/config.json      one generation
 *   ..data -> ..aB3xYz        the one that counts, replaced by rename(2)
 *   config.json -> ..data/config.json
 *
 * So a file is always there and whole, and files that are read through one look at `..data` belong together.
 *
 * All of it lies in a tmpfs, which never waits: a hundred calls at once take a millisecond, and each by way of
 * the thread pool ten.
 */
const currentLink = "..data";

/** The folder of the current generation; undefined where there is none. Where there is one, it is complete. */
export const findGeneration = (root: string): string | undefined =>
  attempt(() => readlinkSync(join(root, currentLink)), unless(undefined, "ENOENT"));

/** A file of the current generation, undefined where there is none. */
export const readCurrent = (root: string, path: string): string | undefined =>
  attempt(
    () => readFileSync(join(root, currentLink, path), "utf8"),
    unless(undefined, "ENOENT", "ENOTDIR"),
  );

/**
 * Makes these the files of the volume.
 * The generation before stays until the next change, for readers that are on their way to it.
 * @returns false where they were so already, and nothing was written
 * @throws Error with `ENOSPC` where they don't fit; what was there before stays
 */
export function writeGeneration(root: string, files: VolumeFiles, access: FileAccess): boolean {
  const current = findGeneration(root);
  const links = new Set([...files.keys()].map(linkName).filter((name) => !isHidden(name)));
  if (current !== undefined && isSame(join(root, current), files)) {
    placeLinks(root, links);
    removeOtherLinks(root, links);
    return false;
  }
  const folder = mkdtempSync(`${root}/..`); // join() would go up
  try {
    writeFiles(folder, files, access);
    // Links come before the swap, so that whoever sees `..data` knows that all is there.
    placeLinks(root, links);
    const next = `${folder}${currentLink}`;
    symlinkSync(basename(folder), next);
    renameSync(next, join(root, currentLink));
  } catch (error) {
    // What can't be removed now is removed after the next attempt.
    attempt(
      () => removeGenerations(root, [current]),
      () => undefined,
    );
    throw error;
  }
  removeOtherLinks(root, links);
  removeGenerations(root, [current, basename(folder)]);
  return true;
}

const linkName = (path: string): string => path.split("/", 1)[0] ?? "";

/** Names of our own; a file's name can begin so, too, and is then seen through `..data` only. */
const isHidden = (name: string): boolean => name.startsWith("..");

function isSame(folder: string, files: VolumeFiles): boolean {
  const present = readdirSync(folder, { recursive: true, withFileTypes: true });
  if (present.filter((entry) => !entry.isDirectory()).length !== files.size) return false;
  for (const [path, content] of files) {
    const text = attempt(
      () => readFileSync(join(folder, path), "utf8"),
      unless(undefined, "ENOENT", "ENOTDIR", "EISDIR"),
    );
    if (text !== content) return false;
  }
  return true;
}

/** Modes and owner are set after the fact, since the process's umask takes part in the first ones. */
function writeFiles(root: string, files: VolumeFiles, access: FileAccess): void {
  const group = access.group ?? 0;
  const adopt = (folder: string): void => {
    chownSync(folder, 0, group);
    chmodSync(folder, access.folderMode);
  };
  adopt(root);
  for (const [path, content] of files) {
    for (const folder of foldersOf(path)) {
      const made = attempt(() => mkdirSync(join(root, folder)), unless("present", "EEXIST"));
      if (made !== "present") adopt(join(root, folder));
    }
    const file = join(root, path);
    writeFileSync(file, content, { flag: "wx", mode: 0o400 });
    chownSync(file, 0, group);
    chmodSync(file, access.fileMode);
  }
}

/**
 * `a/b/c` → `a`, `a/b`
 * @throws TypeError for a path that leads out of its folder
 */
function foldersOf(path: string): readonly string[] {
  const parts = path.split("/");
  if (parts.some((part) => part === "" || part === "." || part === "..")) {
    throw new TypeError(`"${path}" is not a path inside a volume`);
  }
  return parts.slice(0, -1).map((_, index) => parts.slice(0, index + 1).join("/"));
}

function placeLinks(root: string, names: ReadonlySet<string>): void {
  const present = new Set(readdirSync(root));
  for (const name of names) {
    const [link, target] = [join(root, name), `${currentLink}/${name}`];
    if (present.has(name)) {
      if (attempt(() => readlinkSync(link), unless(undefined, "EINVAL")) === target) continue;
      rmSync(link, { recursive: true });
    }
    symlinkSync(target, link);
  }
}

function removeOtherLinks(root: string, names: ReadonlySet<string>): void {
  for (const name of readdirSync(root)) {
    if (!isHidden(name) && !names.has(name)) rmSync(join(root, name), { recursive: true });
  }
}

/** All but these, and what writers left that were killed. */
function removeGenerations(root: string, kept: readonly (string | undefined)[]): void {
  for (const name of readdirSync(root)) {
    if (isHidden(name) && name !== currentLink && !kept.includes(name)) {
      rmSync(join(root, name), { recursive: true, force: true });
    }
  }
}
