import { lstat, mkdir, readFile, realpath } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type {
  MountSettings,
  UnmountSettings,
  VolumeSettings,
  VolumesSettings,
} from "../config/volume-commands.ts";
import type { ListResponse__Output as ListResponse } from "../csi/generated/ociconnector/v1/ListResponse.ts";
import type { MountResponse__Output as MountResponse } from "../csi/generated/ociconnector/v1/MountResponse.ts";
import type { UnmountResponse__Output as UnmountResponse } from "../csi/generated/ociconnector/v1/UnmountResponse.ts";
import type { Volume__Output as Volume } from "../csi/generated/ociconnector/v1/Volume.ts";
import { volumes as service } from "../csi/proto.ts";
import { callOnSocket } from "../csi/socket-client.ts";
import { ownMountPoints, systemMounts } from "../csi/volume-mounts.ts";
import { errorCode, unless } from "../error-code.ts";
import { processStart } from "./machine.ts";

/** What a volume is mounted on and with, beside what it holds. */
export interface MountOptions {
  /** Absolute and without symbolic links in its parents; empty where the process makes a folder. */
  readonly targetPath: string;
  readonly lifetimeSeconds: number;
  readonly pid: number | undefined;
  readonly isReadOnly: boolean;
  readonly isPersistent: boolean;
  readonly replaces: boolean;
  readonly hidesFiles: boolean;
}

/**
 * Mounts a volume by the standalone process.
 * @returns where it is, and when it ends
 * @throws Error with the process's message, or with what to do where this command does not see the volume
 */
export async function mountVolume(
  settings: VolumeSettings,
  options: MountOptions,
): Promise<MountResponse> {
  const request = {
    targetPath: options.targetPath,
    namespace: settings.namespace,
    attributes: settings.attributes,
    group: settings.group,
    readOnly: options.isReadOnly,
    lifetimeSeconds: options.lifetimeSeconds,
    process: options.pid === undefined ? null : await describeProcess(options.pid),
    persistent: options.isPersistent,
    replace: options.replaces,
    force: options.hidesFiles,
  };
  const mounted = await callOnSocket<InstanceType<typeof service.Volumes>, MountResponse>(
    service.Volumes,
    settings.socket,
    (client, deadline, done) => client.mount(request, { deadline }, done),
  );
  const { targetPath } = mounted;
  if (ownMountPoints(await systemMounts.readMountInfo()).has(targetPath)) return mounted;
  await unmountVolume(settings.socket, targetPath);
  throw new Error(
    `the process has mounted a volume at ${targetPath}, but it does not show there for this command, so it was unmounted again: one of the two has mounts of its own. Start the process without PrivateTmp=, ProtectSystem=, PrivateMounts= and the like of systemd, and in a container with the folder around the target as a volume that is mounted rshared; or name a target that both of them see`,
  );
}

async function describeProcess(
  pid: number,
): Promise<{ readonly pid: number; readonly startTicks: number }> {
  const startTicks = await processStart(pid);
  if (startTicks === undefined) {
    throw new Error(`--pid: found no process ${pid}, wanted one that runs`);
  }
  return { pid, startTicks };
}

/**
 * Ends a volume by the standalone process.
 * @returns whether somebody still uses it
 * @throws Error with the process's message
 */
export async function unmountVolume(socket: string, targetPath: string): Promise<boolean> {
  const { stillUsed } = await callOnSocket<InstanceType<typeof service.Volumes>, UnmountResponse>(
    service.Volumes,
    socket,
    (client, deadline, done) => client.unmount({ targetPath }, { deadline }, done),
  );
  return stillUsed;
}

/**
 * Runs `mount`.
 * @returns what to tell the person
 * @throws Error with the process's message
 */
export async function mount(settings: MountSettings): Promise<string> {
  const targetPath = await resolveTarget(settings.target);
  if (process.getuid?.() !== 0) await makeOwnFolder(targetPath);
  const { endsAtMs } = await mountVolume(settings, { ...settings, targetPath });
  const end = endsAtMs === 0 ? "" : ` until ${timeOf(endsAtMs)}`;
  return `mounted ${targetPath}${end}\n`;
}

/**
 * Runs `unmount`.
 * @returns what to tell the person
 * @throws Error with the process's message, also where no volume is mounted at the target
 */
export async function unmount({ socket, target }: UnmountSettings): Promise<string> {
  // A job's folder may be gone already, and its volume has to end all the same.
  const targetPath = await resolveTarget(target).catch(() => target);
  const isStillUsed = await unmountVolume(socket, targetPath);
  return isStillUsed
    ? `unmounted ${targetPath}, which is still used: its token is refused, its files are removed, and the empty mount goes with its last user\n`
    : `unmounted ${targetPath}\n`;
}

/**
 * Makes the folder for a volume of a user who is not root: the process mounts only on one that the user owns. It says
 * what is wrong with one that is there, as far as the user can see it; the process looks itself.
 * @throws Error where there can be no volume in it
 */
async function makeOwnFolder(path: string): Promise<void> {
  try {
    const made = await mkdir(path, { mode: 0o700 }).then(() => true, unless(false, "EEXIST"));
    if (made) return;
    const found = await lstat(path);
    if (!found.isDirectory() || found.uid !== process.getuid?.()) {
      throw new Error(
        `TARGET: found ${path}, which is no folder of yours, wanted an empty folder that you own, or none yet: name another one`,
      );
    }
  } catch (error) {
    const code = errorCode(error);
    if (code === undefined) throw error;
    throw new Error(
      `the folder ${path} can't be made (${String(code)}): name one that you can make`,
    );
  }
}

/** The target without symbolic links in its parents, since the id of a volume depends on its path. */
async function resolveTarget(target: string): Promise<string> {
  const parent = await realpath(dirname(target)).catch((error: unknown) => {
    throw new Error(
      `${dirname(target)} can't be accessed (${String(errorCode(error))}): create that folder first`,
    );
  });
  return join(parent, basename(target));
}

/**
 * Runs `volumes`.
 * @returns the volumes that the caller may see, as a table or as JSON
 * @throws Error with the process's message
 */
export async function volumes({ socket, output }: VolumesSettings): Promise<string> {
  const response = await callOnSocket<InstanceType<typeof service.Volumes>, ListResponse>(
    service.Volumes,
    socket,
    (client, deadline, done) => client.list({}, { deadline }, done),
  );
  const listed = response.volumes.toSorted((one, other) =>
    one.targetPath < other.targetPath ? -1 : 1,
  );
  const users = await userNames();
  if (output === "json") {
    const described = listed.map((volume) => describeVolume(volume, users));
    return `${JSON.stringify(described, undefined, 2)}\n`;
  }
  return table([headings, ...listed.map((volume) => rowOf(volume, users))]);
}

/** A volume for programs. Of what there is none, there is null. */
const describeVolume = (volume: Volume, users: ReadonlyMap<number, string>): object => ({
  target: volume.targetPath,
  connectors: volume.connectors,
  user: users.get(volume.uid) ?? null,
  uid: volume.uid,
  mountedAt: timeOrNull(volume.mountedAtMs),
  endsAt: timeOrNull(volume.endsAtMs),
  pid: volume.pid === 0 ? null : volume.pid,
  persistent: volume.persistent,
  readOnly: volume.readOnly,
  lastUsedAt: timeOrNull(volume.lastUsedAtMs),
  usable: volume.usable,
});

const timeOf = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
const timeOrNull = (ms: number): string | null => (ms === 0 ? null : timeOf(ms));

const headings = ["TARGET", "CONNECTORS", "USER", "MOUNTED", "ENDS", "LAST USED"];

const rowOf = (volume: Volume, users: ReadonlyMap<number, string>): readonly string[] => [
  /[\s\p{Cc}]/u.test(volume.targetPath) ? JSON.stringify(volume.targetPath) : volume.targetPath,
  volume.connectors.join(","),
  users.get(volume.uid) ?? String(volume.uid),
  timeOrNull(volume.mountedAtMs) ?? "-",
  describeEnd(volume),
  timeOrNull(volume.lastUsedAtMs) ?? "-",
];

function describeEnd({ usable, endsAtMs, pid, persistent }: Volume): string {
  if (!usable) return persistent ? "not mounted yet" : "now";
  const ends: string[] = [];
  if (endsAtMs !== 0) ends.push(timeOf(endsAtMs));
  if (pid !== 0) ends.push(`with process ${pid}`);
  if (ends.length === 0) ends.push("never");
  if (persistent) ends.push("persistent");
  return ends.join(", ");
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = headings.map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (row: readonly string[]): string =>
    row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ");
  return rows.map((row) => `${line(row).trimEnd()}\n`).join("");
}

/** The names of this machine's users by their numbers. Users of a directory service have none here. */
async function userNames(): Promise<ReadonlyMap<number, string>> {
  const text = await readFile("/etc/passwd", "utf8").catch(() => "");
  const fields = text.split("\n").map((line) => line.split(":"));
  return new Map(fields.map(([name = "", , uid]) => [Number(uid), name]));
}
