import { lstat, mkdir, realpath, rmdir } from "node:fs/promises";
import { basename, dirname, join, normalize } from "node:path";
import { show } from "../connector/problem.ts";
import { unless } from "../error-code.ts";
import { failedPrecondition, invalidArgument } from "./rpc-error.ts";

/**
 * The path as the kernel's mount table has it: without symbolic links in its parents. A path that
 * only looks different would be mounted once more on every republish (spiffe/spiffe-csi#331).
 * @param field the request's field that holds the path, for the error
 * @returns undefined where the parent is no folder, so that nothing can be at the path
 * @throws RpcError where it is no absolute, normalised path
 */
export async function resolveTarget(field: string, path: string): Promise<string | undefined> {
  const isNormal = path.startsWith("/") && normalize(path) === path && !path.includes("\0");
  if (!isNormal || path.endsWith("/")) {
    const found = path === "" ? "nothing" : show(path);
    throw invalidArgument(`${field}: found ${found}, wanted an absolute, normalised path`);
  }
  const parent = await realpath(dirname(path)).catch(unless(undefined, "ENOENT", "ENOTDIR"));
  if (parent === undefined) return undefined;
  const found = await lstat(parent).catch(unless(undefined, "ENOENT"));
  return found?.isDirectory() ? join(parent, basename(path)) : undefined;
}

/**
 * Makes the folder to mount on, unless it exists.
 * @throws RpcError where something other than a folder is there
 */
export async function makeMountPoint(path: string): Promise<void> {
  await mkdir(path, { mode: 0o750 }).catch(unless(undefined, "EEXIST"));
  await checkMountPoint(path);
}

/**
 * Checks that a folder or nothing is at the path.
 * @throws RpcError where something else is there: mount(8) would follow a symbolic link
 */
export async function checkMountPoint(path: string): Promise<void> {
  const present = await lstat(path).catch(unless(undefined, "ENOENT"));
  if (present === undefined || present.isDirectory()) return;
  const found = present.isSymbolicLink() ? "a symbolic link" : "a file";
  throw failedPrecondition(
    `target_path ${show(path)}: found ${found}, wanted a folder or nothing: remove it`,
  );
}

/** Removes the folder if it exists and is empty. Anything else at the path is not the driver's, and stays. */
export async function removeMountPoint(path: string): Promise<void> {
  await rmdir(path).catch(unless(undefined, "ENOENT", "ENOTDIR", "ENOTEMPTY", "EEXIST"));
}
