import { execFile } from "node:child_process";
import { closeSync, constants, openSync } from "node:fs";
import { mkdtemp, readFile, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { status } from "@grpc/grpc-js";
import { failedPrecondition, RpcError, unavailable } from "./rpc-error.ts";

/** The calls to the operating system that mounts need. Node has no mount(2), so programs do it. */
export interface MountEffects {
  /** The text of `/proc/self/mountinfo`. */
  readonly readMountInfo: () => Promise<string>;
  /** Runs mount(8) or umount(8). Rejects with an error whose `stderr` is what the program wrote there. */
  readonly run: (program: "mount" | "umount", args: readonly string[]) => Promise<unknown>;
}

/** The calls to this machine's operating system. */
export const systemMounts: MountEffects = {
  readMountInfo: () => readFile("/proc/self/mountinfo", "utf8"),
  run: (program, args) =>
    promisify(execFile)(program, args, { env: { ...process.env, LC_ALL: "C" } }),
};

/** Mounts and unmounts the volumes of this driver: a tmpfs each, at the target path. */
export interface VolumeMounts {
  /**
   * Leaves one of this driver's mounts at the path. There may be more where a driver was killed and its mount(8) ran on.
   * @returns whether there is one
   * @throws RpcError where something else is mounted there
   */
  readonly keepOne: (path: string) => Promise<boolean>;
  /**
   * Mounts an empty tmpfs on the folder.
   * @param options further options of the mount: SELinux contexts
   * @throws RpcError where the mount fails, or another process has removed it by then
   */
  readonly mount: (path: string, access: FileAccess, options: readonly string[]) => Promise<void>;
  /**
   * Unmounts all of this driver's mounts at the path.
   * @param check looks at each mount while it is on top, and throws where it has to stay
   * @returns false where there was none
   * @throws RpcError where something else is mounted there, or somebody uses a mount; and what `check` throws
   */
  readonly unmountAll: (path: string, check?: () => void) => Promise<boolean>;
  /**
   * Unmounts all of this driver's mounts at the path, also those that somebody uses. Such a mount is gone from the path
   * at once, and from the kernel when its last user has left it.
   * @param prepare is called for each mount while it is on top, before it is unmounted, and throws where it has to stay
   * @throws RpcError where something else is mounted there; and what `prepare` throws
   */
  readonly detachAll: (path: string, prepare: () => Promise<void>) => Promise<DetachedMounts>;
  /**
   * Makes the mount at the path read-only, also for root.
   * @throws RpcError where the system refuses that, as while somebody has a file open to write
   */
  readonly protect: (path: string) => Promise<void>;
  /**
   * Opens the file system of a read-only mount to write, for the caller alone: the mount at the path stays as it is.
   * @param room gives the file system that much room first
   * @throws RpcError where the system refuses that
   */
  readonly openWritable: (path: string, room?: VolumeRoom) => Promise<WritableView>;
  /**
   * Gives the writable mount at the path more room.
   * @throws RpcError where the system refuses that
   */
  readonly enlarge: (path: string, room: VolumeRoom) => Promise<void>;
}

/** The files of a read-only mount, in a way that they can be written. */
export interface WritableView {
  /** The path of its root for this process. */
  readonly root: string;
  readonly close: () => void;
}

/** What was unmounted at a path. */
export interface DetachedMounts {
  readonly wasMounted: boolean;
  /** Whether somebody still uses what was mounted there: a process works in it, or has a file of it open. */
  readonly isStillUsed: boolean;
}

/** How much fits into a volume. */
export interface VolumeRoom {
  readonly bytes: number;
  readonly inodes: number;
}

/** The mount table's column for the device, by which this driver's mounts are known. */
const mountSource = "connectors-csi";

/** How much fits into a volume when it is mounted. What its files need beyond that it gets before they are written. */
const firstRoom = ["size=2m", "nr_inodes=1024"];
/** The options of each mount, which a remount has to name again. */
const mountFlags = ["nosuid", "nodev", "noexec"];

/** Creates the mounts and unmounts of volumes over the calls that they need. */
export function createVolumeMounts({ readMountInfo, run }: MountEffects): VolumeMounts {
  // Linux before 6.4 does not know the option, and a user namespace may not use it.
  let swapOptions: readonly string[] = ["noswap"];

  const countOwn = async (path: string): Promise<number> => {
    const mounts = mountsAt(await readMountInfo(), path);
    const foreign = mounts.find((mount) => !isOwn(mount));
    if (foreign === undefined) return mounts.length;
    throw failedPrecondition(
      `target_path "${path}": found a mount of ${foreign.fsType} (${foreign.source}), wanted this driver's tmpfs or nothing: unmount it`,
    );
  };

  /** Unmounts until at most the wanted number is left. Returns how many are left, which may be fewer. */
  const unmountDownTo = async (
    wanted: number,
    path: string,
    check?: () => void,
  ): Promise<number> => {
    let count = await countOwn(path);
    while (count > wanted) {
      check?.();
      await run("umount", [path]).catch(explain(`can't unmount "${path}"`));
      count = await countOwn(path);
    }
    return count;
  };

  const mountTmpfs = (path: string, options: readonly string[]) =>
    run("mount", ["-t", "tmpfs", "-o", options.join(","), mountSource, path]);

  const remount = (path: string, options: readonly string[]) =>
    run("mount", ["-o", ["remount", ...options, ...mountFlags].join(","), mountSource, path]).catch(
      explain(`can't remount "${path}"`),
    );

  /** @returns whether somebody uses what was mounted there */
  const detach = async (path: string): Promise<boolean> => {
    try {
      await run("umount", [path]);
      return false;
    } catch (error) {
      if ((await countOwn(path)) === 0) return false; // somebody else was faster
      await run("umount", ["--lazy", path]).catch(explain(`can't unmount "${path}"`));
      return isBusy(error);
    }
  };

  return {
    keepOne: async (path) => (await unmountDownTo(1, path)) > 0,
    async unmountAll(path, check) {
      const isMounted = (await countOwn(path)) > 0;
      if (isMounted) await unmountDownTo(0, path, check);
      return isMounted;
    },
    async detachAll(path, prepare) {
      let count = await countOwn(path);
      const wasMounted = count > 0;
      let isStillUsed = false;
      while (count > 0) {
        await prepare();
        isStillUsed = (await detach(path)) || isStillUsed;
        count = await countOwn(path);
      }
      return { wasMounted, isStillUsed };
    },
    // By "bind" the mount alone changes, and not its file system.
    protect: async (path) => void (await remount(path, ["bind", "ro"])),
    enlarge: async (path, room) => void (await remount(path, roomOptions(room))),
    async openWritable(path, room) {
      const place = await mkdtemp(join(tmpdir(), "connectors-csi-"));
      try {
        await run("mount", ["--bind", path, place]).catch(explain(`can't open "${path}" to write`));
        try {
          await remount(place, room === undefined ? ["bind", "rw"] : roomOptions(room));
          const root = openSync(place, constants.O_DIRECTORY);
          return { root: `/proc/self/fd/${root}`, close: () => closeSync(root) };
        } finally {
          // What is open stays usable. Nobody else can get there any more, nor is anything left where we are killed.
          await run("umount", ["--lazy", place]).catch(explain(`can't unmount "${place}"`));
        }
      } finally {
        await rmdir(place);
      }
    },
    async mount(path, { folderMode, group }, options) {
      const all = [
        ...firstRoom,
        ...mountFlags,
        `mode=${folderMode.toString(8)}`,
        ...(group === undefined ? [] : [`gid=${group}`]),
        ...options,
      ];
      const swap = swapOptions; // a concurrent mount may find out that it has to be empty
      await mountTmpfs(path, [...all, ...swap])
        .catch(async (error: unknown) => {
          if (swap.length === 0) throw error;
          await mountTmpfs(path, all);
          swapOptions = [];
        })
        .catch(explain(`can't mount a tmpfs at "${path}" (this needs CAP_SYS_ADMIN)`));
      // Without a mount the files would go to the disk.
      if ((await unmountDownTo(1, path)) === 0) {
        throw unavailable(`another process has unmounted "${path}"; the next attempt may succeed`);
      }
    },
  };
}

const roomOptions = ({ bytes, inodes }: VolumeRoom): readonly string[] => [
  "rw",
  `size=${bytes}`,
  `nr_inodes=${inodes}`,
];

const isOwn = (mount: MountEntry): boolean =>
  mount.fsType === "tmpfs" && mount.source === mountSource;

/**
 * The paths at which else the file system of a volume is mounted.
 * @param mountInfo the text of `/proc/<pid>/mountinfo`
 * @param path where the volume is mounted
 */
export function otherMountPoints(mountInfo: string, path: string): readonly string[] {
  const own = ownMounts(mountInfo);
  const device = own.find(({ mountPoint }) => mountPoint === path)?.device;
  return own
    .filter((mount) => mount.device === device && mount.mountPoint !== path)
    .map(({ mountPoint }) => mountPoint);
}

/** Whether umount(8) has failed since somebody uses the mount. It says so in English: `systemMounts` asks for that. */
const isBusy = (error: unknown): boolean =>
  error instanceof Error && "stderr" in error && String(error.stderr).includes("busy");

function explain(what: string): (error: unknown) => never {
  return (error) => {
    const stderr = error instanceof Error && "stderr" in error ? String(error.stderr) : "";
    const [said = ""] = stderr.split("\n", 1); // behind it comes advice to look into dmesg(1)
    throw new RpcError(status.INTERNAL, `${what}: ${said || "see the driver's log"}`, {
      cause: error,
    });
  };
}

/** The number of CAP_SYS_ADMIN in capabilities(7), which mount(2) requires. */
const sysAdminCapability = 21n;

/**
 * What this process lacks to mount volumes. mount(8) requires both root and the capability.
 * @param status the text of `/proc/self/status`
 * @returns what was found and wanted, or undefined where nothing is missing
 */
export function missingMountRight(status: string): string | undefined {
  const field = (name: string): string =>
    new RegExp(`^${name}:\\s*(\\S+)`, "m").exec(status)?.[1] ?? "0";
  const user = field("Uid");
  if (user !== "0") return `found user ${user}, wanted root`;
  const capabilities = BigInt(`0x${field("CapEff")}`);
  if ((capabilities >> sysAdminCapability) % 2n === 1n) return undefined;
  return "found root without CAP_SYS_ADMIN, wanted root with it (in a container: --cap-add=SYS_ADMIN)";
}

/**
 * The owner and the modes of a volume's files. Without a group every user may read them, since the kubelet's folder
 * around the volume is open to root alone and each container sees its own volumes only.
 */
export interface FileAccess {
  /** The owner of all that is in the volume; root where undefined. */
  readonly owner?: number;
  /** The owning group of all that is in the volume; root's where undefined. */
  readonly group: number | undefined;
  readonly folderMode: number;
  readonly fileMode: number;
}

/**
 * The owner and the modes of a volume's files for a group.
 * @param group the Pod's `fsGroup`, which the kubelet passes as `volume_mount_group`
 */
export const fileAccessFor = (group: number | undefined): FileAccess =>
  group === undefined
    ? { group, folderMode: 0o755, fileMode: 0o444 }
    : { group, folderMode: 0o750, fileMode: 0o440 };

/** The owner and the modes of the files of a volume that one user alone may read. */
export const fileAccessOfUser = (owner: number): FileAccess => ({
  owner,
  group: undefined,
  folderMode: 0o500,
  fileMode: 0o400,
});

/** One mount of `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)), with the fields that are used here. */
export interface MountEntry {
  readonly mountPoint: string;
  readonly fsType: string;
  readonly source: string;
}

/**
 * The mounts at exactly this path. The last one is on top. Only matching lines are parsed further, since a node may
 * have ten thousand mounts.
 * @param mountInfo the text of `/proc/<pid>/mountinfo`
 */
export function mountsAt(mountInfo: string, path: string): readonly MountEntry[] {
  const mounts: MountEntry[] = [];
  for (const line of mountInfo.split("\n")) {
    if (unescapeOctal(fieldAt(line, mountPointField)) !== path) continue;
    // Optional fields come before the separator, so what follows is counted from there.
    const [fsType = "", source = ""] = line.slice(line.indexOf(" - ") + 3).split(" ");
    mounts.push({ mountPoint: path, fsType, source: unescapeOctal(source) });
  }
  return mounts;
}

/** The paths at which this driver has mounts. @param mountInfo the text of `/proc/<pid>/mountinfo` */
export const ownMountPoints = (mountInfo: string): ReadonlySet<string> =>
  new Set(ownMounts(mountInfo).map(({ mountPoint }) => mountPoint));

/** The mounts of this driver, and the device of each. */
const ownMounts = (mountInfo: string) =>
  mountInfo
    .split("\n")
    .filter((line) => line.includes(` - tmpfs ${mountSource} `))
    .map((line) => ({
      device: fieldAt(line, deviceField),
      mountPoint: unescapeOctal(fieldAt(line, mountPointField)),
    }));

const deviceField = 2;
const mountPointField = 4;

function fieldAt(line: string, index: number): string {
  let start = 0;
  for (let field = 0; field < index; field++) {
    const space = line.indexOf(" ", start);
    if (space < 0) return "";
    start = space + 1;
  }
  const end = line.indexOf(" ", start);
  return end < 0 ? line.slice(start) : line.slice(start, end);
}

/** Decodes `\ooo`, which the kernel writes for a space, a tab, a newline, a backslash and a `#`. */
export const unescapeOctal = (text: string): string =>
  text.includes("\\")
    ? text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
        String.fromCharCode(Number.parseInt(digits, 8)),
      )
    : text;
