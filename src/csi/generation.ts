/*
 * Swaps the files of a volume as a whole, as the kubelet does for Secrets:
 *
 *   ..aB3xYz/config.json      one generation
 *   ..data -> ..aB3xYz        the current generation, replaced by rename(2)
 *   config.json -> ..data/config.json
 *
 * A file is therefore always there and complete, and all files read through one resolved `..data` belong together.
 *
 * The calls are synchronous, since all of it lies in a tmpfs, which never waits: a hundred of them take a
 * millisecond in all, and ten milliseconds each by way of the thread pool.
 */
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
import type { FileAccess, VolumeRoom } from "./volume-mounts.ts";

const currentLink = "..data";

/** The name of the current generation's folder, or undefined before the first one. A current generation is complete. */
export const findGeneration = (root: string): string | undefined =>
  attempt(() => readlinkSync(join(root, currentLink)), unless(undefined, "ENOENT"));

/** The text of a file of the current generation, or undefined where there is no such file. */
export const readCurrent = (root: string, path: string): string | undefined =>
  attempt(
    () => readFileSync(join(root, currentLink, path), "utf8"),
    unless(undefined, "ENOENT", "ENOTDIR"),
  );

/**
 * Makes these the files of the volume.
 * The previous generation stays until the next change, for readers that have resolved `..data` already.
 * @param root the folder that the volume is mounted on
 * @returns false where the volume had exactly these files already, and nothing was written
 * @throws Error with the code `ENOSPC` where they don't fit; the previous files stay then
 */
export function writeGeneration(root: string, files: VolumeFiles, access: FileAccess): boolean {
  const current = findGeneration(root);
  const links = new Set([...files.keys()].map(linkName).filter((name) => !isHidden(name)));
  if (current !== undefined && isSame(join(root, current), files)) {
    placeLinks(root, links);
    removeOtherLinks(root, links);
    return false;
  }
  // Three generations at once would need half as much room again.
  removeGenerations(root, [current]);
  const folder = mkdtempSync(`${root}/..`); // join() would go up
  try {
    writeFiles(folder, files, access);
    // Links come before the swap, so that all files are there when `..data` changes.
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
  // The mount itself has root as its owner, so that it is nobody's before it is read-only.
  if (access.owner !== undefined) chownSync(root, access.owner, access.group ?? 0);
  removeOtherLinks(root, links);
  removeGenerations(root, [current, basename(folder)]);
  return true;
}

/** Removes everything from a volume. What can't be removed stays: somebody may have mounted something inside. */
export function emptyVolume(root: string): void {
  const keep = unless(undefined, "EBUSY", "ENOTEMPTY", "ENOENT");
  // Without this link, no other one leads to a file.
  attempt(() => rmSync(join(root, currentLink)), keep);
  for (const name of readdirSync(root)) {
    attempt(() => rmSync(join(root, name), { recursive: true }), keep);
  }
}

/**
 * The room that a volume needs for files and, while they are replaced, for as much again.
 * @param blockBytes of which size the pieces are that the volume's file system gives to files
 */
export function roomFor(files: VolumeFiles, blockBytes: number): VolumeRoom {
  const blocks = [...files.values()].map((text) => Math.ceil(Buffer.byteLength(text) / blockBytes));
  const folders = new Set([...files.keys()].flatMap(foldersOf));
  const links = new Set([...files.keys()].map(linkName));
  // Of each generation there is a folder besides, and of the volume its root and the links to a generation.
  const inodes = 2 * (files.size + folders.size + 1) + links.size + 8;
  const bytes = 2 * blockBytes * (blocks.reduce((sum, count) => sum + count, 0) + links.size + 8);
  return { bytes, inodes };
}

const linkName = (path: string): string => path.split("/", 1)[0] ?? "";

/** Whether a name is one of the driver's own. A volume's file with such a name is visible through `..data` only. */
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

/** Sets modes and owners after creation, since the process's umask restricts the modes of creation. */
function writeFiles(root: string, files: VolumeFiles, access: FileAccess): void {
  const { owner = 0, group = 0 } = access;
  const adopt = (folder: string): void => {
    chownSync(folder, owner, group);
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
    chownSync(file, owner, group);
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

/** Removes all generations but those kept, and what killed writers have left. */
function removeGenerations(root: string, kept: readonly (string | undefined)[]): void {
  for (const name of readdirSync(root)) {
    if (isHidden(name) && name !== currentLink && !kept.includes(name)) {
      rmSync(join(root, name), { recursive: true, force: true });
    }
  }
}
