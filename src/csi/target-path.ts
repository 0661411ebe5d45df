import { lstat, mkdir, readdir, realpath, rmdir } from "node:fs/promises";
import { basename, dirname, join, normalize } from "node:path";
import { show } from "../connector/problem.ts";
import { errorCode, unless } from "../error-code.ts";
import { failedPrecondition, invalidArgument } from "./rpc-error.ts";

/**
 * The path as the kernel's mount table has it: without symbolic links in its parents. A path that
 * only looks different would be mounted once more on every republish (spiffe/spiffe-csi#331).
 * @param field the request's field that holds the path, for the error
 * @returns undefined where the parent is no folder, so that nothing can be at the path
 * @throws RpcError where it is no absolute, normalised path, or one that the kernel takes for none
 */
export async function resolveTarget(field: string, path: string): Promise<string | undefined> {
  const isNormal = path.startsWith("/") && normalize(path) === path && !path.includes("\0");
  if (!isNormal || path.endsWith("/")) {
    const found = path === "" ? "nothing" : show(path);
    throw invalidArgument(
      `${field}: found ${found}, wanted an absolute, normalised path of a folder below /`,
    );
  }
  const nothing = unless(undefined, "ENOENT", "ENOTDIR");
  const parent = await realpath(dirname(path)).catch(nothing).catch(blamePath(field, path));
  if (parent === undefined) return undefined;
  const found = await lstat(parent).catch(nothing).catch(blamePath(field, path));
  return found?.isDirectory() ? join(parent, basename(path)) : undefined;
}

/** What the kernel says where a path, and no state of the node, is why there can be no folder: errno(3). */
const pathFaults: Readonly<Record<string, string>> = {
  EACCES: "this process may not go there",
  EINVAL: "the file system takes no such name",
  EILSEQ: "the file system takes no such name",
  ELOOP: "its symbolic links lead in a circle",
  ENAMETOOLONG: "a name of more than 255 bytes, or a path of more than 4095",
  ENOENT: "the file system takes no folders there",
  ENOTDIR: "a parent is no folder",
  EPERM: "the file system lets nobody make folders there",
  EROFS: "the file system is read-only",
};

/**
 * A handler for errors of the file system: one that the caller's path is to blame for becomes INVALID_ARGUMENT, and
 * every other error is thrown again.
 */
function blamePath(field: string, path: string): (error: unknown) => never {
  return (error) => {
    const code = String(errorCode(error));
    const fault = pathFaults[code];
    if (fault === undefined) throw error;
    throw invalidArgument(
      `${field}: found ${show(path)}, wanted a path where a folder can be (${code}: ${fault})`,
    );
  };
}

/**
 * Makes the folder to mount on, unless it exists.
 * @throws RpcError where something other than a folder is there, or no folder can be
 */
export async function makeMountPoint(path: string): Promise<void> {
  await mkdir(path, { mode: 0o750 })
    .catch(unless(undefined, "EEXIST"))
    .catch(blamePath("target_path", path));
  await checkMountPoint(path);
}

/**
 * Checks that a folder or nothing is at the path.
 * @throws RpcError where something else is there: mount(8) would follow a symbolic link
 */
export async function checkMountPoint(path: string): Promise<void> {
  const present = await lstat(path)
    .catch(unless(undefined, "ENOENT"))
    .catch(blamePath("target_path", path));
  if (present === undefined || present.isDirectory()) return;
  const found = present.isSymbolicLink() ? "a symbolic link" : "a file";
  throw failedPrecondition(
    `target_path ${show(path)}: found ${found}, wanted a folder or nothing: remove it`,
  );
}

/**
 * Whether a folder has anything in it. What is missing, or no folder, has nothing.
 * @throws RpcError where no folder can be at the path
 */
export async function hasFiles(path: string): Promise<boolean> {
  const names = await readdir(path)
    .catch(unless([], "ENOENT", "ENOTDIR"))
    .catch(blamePath("target_path", path));
  return names.length > 0;
}

/** What rmdir(2) says of what it leaves in its place: a file, a full folder, or one that can't be removed at all. */
const staysThere = ["ENOENT", "ENOTDIR", "ENOTEMPTY", "EEXIST", "EACCES", "EPERM", "EROFS"];

/**
 * Removes the folder if it exists and is empty. Anything else at the path is not the driver's, and stays.
 * @throws RpcError where nothing can be at the path
 */
export async function removeMountPoint(path: string): Promise<void> {
  await rmdir(path)
    .catch(unless(undefined, ...staysThere))
    .catch(blamePath("target_path", path));
}
