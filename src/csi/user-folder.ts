/*
 * Shows a volume in a folder of a user who is not root. The user can rename, swap and remove everything around that
 * folder while root works. So the volume itself is at a place that the user can't change, where all writing is done, and
 * in the user's folder there is a second mount of it. That folder is reached without following any link, is looked
 * at once it is open, and is given to mount(8) as an open descriptor and not as a path.
 */
import { constants } from "node:fs";
import { type FileHandle, open, readdir, stat, statfs } from "node:fs/promises";
import { normalize } from "node:path";
import { show } from "../connector/problem.ts";
import { errorCode } from "../error-code.ts";
import { failedPrecondition, type RpcError, unavailable } from "./rpc-error.ts";
import { type MountEffects, otherMountPoints } from "./volume-mounts.ts";

/** Volumes in folders of users. */
export interface UserFolders {
  /**
   * Shows the volume at a place in a folder, too.
   * @param place where the volume is mounted read-only
   * @throws RpcError where the folder is none that the user owns, or is not empty
   */
  readonly show: (place: string, folder: string, uid: number) => Promise<void>;
  /**
   * Ends all that `show` has mounted of the volume at a place, wherever it has been moved.
   * @throws RpcError where something is left
   */
  readonly hide: (place: string) => Promise<void>;
}

/** Creates what shows volumes in folders of users. */
export function createUserFolders({ readMountInfo, run }: MountEffects): UserFolders {
  const shownAt = async (place: string): Promise<readonly string[]> =>
    otherMountPoints(await readMountInfo(), place);

  /** Unmounts what is at a path, where that is the volume. */
  const hideAt = async (path: string, device: number): Promise<void> => {
    const root = await openFolder(path);
    if (root === undefined) return; // it was moved just now
    try {
      if ((await root.stat()).dev !== device) return;
      await run("umount", ["--no-canonicalize", "--lazy", pathOf(root)]);
    } finally {
      await root.close();
    }
  };

  const hide = async (place: string): Promise<void> => {
    let failure: unknown;
    for (let attempts = 0; attempts < maxAttempts; attempts++) {
      const paths = await shownAt(place);
      if (paths.length === 0) return;
      const { dev } = await stat(place);
      for (const path of paths) {
        await hideAt(path, dev).catch((error: unknown) => {
          failure = error;
        });
      }
    }
    const paths = await shownAt(place);
    if (paths.length === 0) return;
    throw unavailable(
      `the volume is still mounted at ${paths.map(show).join(", ")}${failure === undefined ? "" : ` (${String(failure)})`}`,
    );
  };

  return {
    hide,
    async show(place, path, uid) {
      const folder = await openFolder(path);
      if (folder === undefined) throw unfitFolder(path);
      try {
        if (!(await isFit(folder, uid))) throw unfitFolder(path);
        await run("mount", ["--no-canonicalize", "--bind", place, pathOf(folder)]);
      } finally {
        await folder.close();
      }
      if ((await shownAt(place)).includes(path)) return;
      await hide(place);
      throw failedPrecondition(
        `target_path ${show(path)} was moved while a volume was mounted on it: mount it again`,
      );
    },
  };
}

/** A user who moves folders all the time can delay the end of a mount by this many attempts, each of which is tried again later. */
const maxAttempts = 20;

/** One sentence for all reasons, since it must not say what there is in folders that the user can't read. */
const unfitFolder = (path: string): RpcError =>
  failedPrecondition(
    `target_path ${show(path)}: wanted an empty folder that belongs to you, by a path without symbolic links, on a file system of this machine: make a new folder, or name another one`,
  );

/** `O_PATH` of open(2), which Node has no name for: neither the right to read a folder is needed, nor is anything done to it. */
const openAsPath = 0o10000000;

/** An open folder as a path that leads to that very folder, whatever it is called by now. */
const pathOf = ({ fd }: FileHandle): string => `/proc/${process.pid}/fd/${fd}`;

/**
 * Opens a folder component by component, following no link.
 * @returns undefined where there is none
 */
async function openFolder(path: string): Promise<FileHandle | undefined> {
  if (!path.startsWith("/") || normalize(path) !== path || path.includes("\0")) return undefined;
  const flags = openAsPath | constants.O_DIRECTORY | constants.O_NOFOLLOW;
  let folder = await open("/", flags);
  for (const name of path.split("/").filter((component) => component !== "")) {
    const parent = folder;
    try {
      folder = await open(`${pathOf(parent)}/${name}`, flags);
    } catch (error) {
      if (noFolder.has(errorCode(error))) return undefined;
      throw error;
    } finally {
      await parent.close();
    }
  }
  return folder;
}

const noFolder: ReadonlySet<unknown> = new Set([
  "ENOENT",
  "ENOTDIR",
  "ELOOP",
  "ENAMETOOLONG",
  "EACCES",
  "EPERM",
  "EINVAL",
  "EIO",
]);

/** Whether a user may have a volume in a folder that is open. */
async function isFit(folder: FileHandle, uid: number): Promise<boolean> {
  const { uid: owner } = await folder.stat();
  if (owner !== uid) return false;
  const { type } = await statfs(pathOf(folder));
  return !kernelFileSystems.has(type) && (await readdir(pathOf(folder))).length === 0;
}

/** File systems whose folders are the kernel's or another process's, by the numbers of statfs(2). */
const kernelFileSystems: ReadonlySet<number> = new Set([
  0x9fa0, // proc
  0x62656572, // sysfs
  0x27e0eb, // cgroup
  0x63677270, // cgroup2
  0x65735546, // FUSE
]);
