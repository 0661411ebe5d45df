import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { isAbsolute, join, resolve } from "node:path";
import { parseJson, property } from "../connector/document.ts";
import { Unavailable } from "../connector/platform.ts";
import { errorCode } from "../error-code.ts";
import { readPrivateFile, removePrivateFile, writePrivateFile } from "./private-file.ts";
import { isVolumeLife, type VolumeLife } from "./volume-life.ts";

/** The fields of a request to publish that are used here. The others are kept as they are. */
export interface RecordedRequest {
  readonly volumeId: string;
  readonly targetPath: string;
  readonly volumeContext: Readonly<Record<string, string>>;
  readonly secrets: Readonly<Record<string, string>>;
}

/** A volume as it is recorded across restarts. */
export interface VolumeRecord<Request extends RecordedRequest> {
  /** The id of this mount in its tokens. */
  readonly mount: string;
  /**
   * Whether a mount or an unmount has begun and not ended. Its caller has no response yet, and gets none from a process
   * that was killed, so the next process unmounts the volume.
   */
  readonly inDoubt: boolean;
  /** The request, without secrets. */
  readonly request: Request;
  /** Who has mounted it, and when; undefined in records of versions that knew neither. */
  readonly origin?: VolumeOrigin;
  /** Undefined in records of versions in which an unmount alone ended a volume. */
  readonly life?: VolumeLife;
  /** The folder of a user in which the volume is mounted, too, and under which that user knows it. */
  readonly shownAt?: string;
}

/** Who has mounted a volume, and when. */
export interface VolumeOrigin {
  /** The number of the user. */
  readonly uid: number;
  /** Milliseconds since 1970. */
  readonly mountedAt: number;
}

/** Keeps the records of volumes in a folder of their own. */
export interface VolumeRecordStore<Request extends RecordedRequest> {
  /** Reads all records, and finds the files that are damaged. */
  load(): Promise<LoadedRecords<Request>>;
  /**
   * Writes a record. The volume's id has to be one that `isVolumeId` allows.
   * @throws Unavailable where the file system takes no more
   */
  save(record: VolumeRecord<Request>): Promise<void>;
  /** Removes a record. A missing one is no error. */
  remove(volumeId: string): Promise<void>;
}

/** The records in a folder. */
export interface LoadedRecords<Request extends RecordedRequest> {
  readonly records: readonly VolumeRecord<Request>[];
  /** The paths of files that hold no valid record. */
  readonly damaged: readonly string[];
}

/** Whether a volume's id can be recorded. It becomes a file's name. */
export const isVolumeId = (text: string): boolean =>
  /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(text);

/** Creates the store of records in an existing folder. */
export function createVolumeRecordStore<Request extends RecordedRequest>(
  folder: string,
): VolumeRecordStore<Request> {
  const fileOf = (volumeId: string): string => join(folder, `${volumeId}.json`);
  return {
    async load() {
      const names = (await readdir(folder)).filter((name) => name.endsWith(".json")).sort();
      const records: VolumeRecord<Request>[] = [];
      const damaged: string[] = [];
      for (const name of names) {
        const path = join(folder, name);
        const record = parseRecord<Request>(await readPrivateFile(path));
        if (record !== undefined && fileOf(record.request.volumeId) === path) records.push(record);
        else damaged.push(path);
      }
      return { records, damaged };
    },
    async save(record) {
      const request = { ...record.request, secrets: {} };
      const text = JSON.stringify({ ...record, request }, undefined, 2);
      await writePrivateFile(fileOf(record.request.volumeId), `${text}\n`).catch(
        (error: unknown) => {
          if (!fullDisk.has(String(errorCode(error)))) throw error;
          throw new Unavailable(
            `the record of the volume can't be written to ${folder} (${errorCode(error)}): make room on that file system`,
          );
        },
      );
    },
    async remove(volumeId) {
      if (isVolumeId(volumeId)) await removePrivateFile(fileOf(volumeId));
    },
  };
}

const fullDisk: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT", "EROFS"]);

function parseRecord<Request extends RecordedRequest>(
  content: Buffer | undefined,
): VolumeRecord<Request> | undefined {
  const record = parseJson(content?.toString("utf8"));
  return isRecord<Request>(record) ? record : undefined;
}

/** Checks the fields that are used here. The others are taken as they were saved. */
function isRecord<Request extends RecordedRequest>(value: unknown): value is VolumeRecord<Request> {
  const request = property(value, "request");
  const context = property(request, "volumeContext");
  return (
    [
      property(value, "mount"),
      property(request, "volumeId"),
      property(request, "targetPath"),
    ].every((text) => typeof text === "string" && text !== "") &&
    typeof property(value, "inDoubt") === "boolean" &&
    typeof context === "object" &&
    context !== null &&
    Object.values(context).every((text) => typeof text === "string") &&
    isAbsentOr(property(value, "origin"), isVolumeOrigin) &&
    isAbsentOr(property(value, "life"), isVolumeLife) &&
    isAbsentOr(property(value, "shownAt"), (path) => typeof path === "string")
  );
}

const isAbsentOr = (value: unknown, isRight: (value: unknown) => boolean): boolean =>
  value === undefined || isRight(value);

const isVolumeOrigin = (value: unknown): value is VolumeOrigin =>
  typeof property(value, "uid") === "number" && typeof property(value, "mountedAt") === "number";

/**
 * The id of the volume at a target path, which depends on nothing else, since whoever unmounts knows the path alone.
 * Symbolic links are not followed, so all callers have to resolve those in the path's parents first.
 * @throws TypeError for a relative path, which means another place in another process
 */
export function volumeIdOf(targetPath: string): string {
  if (!isAbsolute(targetPath)) throw new TypeError("a volume's target is an absolute path");
  return createHash("sha256").update(resolve(targetPath)).digest("hex").slice(0, 32);
}

/** The request without secrets and as JSON has it, so that it can be compared with a recorded one. */
export function withoutSecrets<Request extends RecordedRequest>(request: Request): Request {
  return JSON.parse(JSON.stringify({ ...request, secrets: {} }));
}

/** A request to unpublish a volume. */
export interface UnpublishRequest {
  readonly volumeId: string;
  readonly targetPath: string;
}

/** What came of the end of a volume. */
export interface EndedVolume {
  readonly wasMounted: boolean;
  /** Whether somebody still uses the mount, which has no files any more and goes with its last user. */
  readonly isStillUsed: boolean;
}

/** Where a volume stands in its life. */
export type VolumeState =
  /** Its mount has begun. Its token is good already, since a tool may read it before the mount's caller hears of it. */
  | "mounting"
  | "mounted"
  /** It was mounted before a reboot, and is to be mounted again. No token of it is good. */
  | "away"
  /** Its token is refused, and its mount is still to go. */
  | "ending";

/** A volume and where it stands. */
export interface HeldVolume<Request extends RecordedRequest> {
  readonly record: VolumeRecord<Request>;
  readonly state: VolumeState;
}

/** What recorded volumes work with. */
export interface RecordedVolumesOptions<Request extends RecordedRequest> {
  readonly records: VolumeRecordStore<Request>;
  /** The volumes that an earlier process has left. */
  readonly held: readonly HeldVolume<Request>[];
  /** Mounts a volume. A call that fails undoes what it has begun. */
  readonly publish: (record: VolumeRecord<Request>, signal?: AbortSignal) => Promise<void>;
  /** Removes a volume's files and unmounts it. One that isn't mounted is no error. */
  readonly end: (
    request: UnpublishRequest,
    record: VolumeRecord<Request> | undefined,
  ) => Promise<EndedVolume>;
}

/** Mounted volumes and their records, which stay consistent whenever the process is killed. */
export interface RecordedVolumes<Request extends RecordedRequest> {
  /** A volume by its id, or undefined where it is unknown. */
  get(volumeId: string): HeldVolume<Request> | undefined;
  all(): Iterable<HeldVolume<Request>>;
  /** Mounts a volume that isn't known. Where that fails, the volume is unknown again, or ending. */
  mount(record: VolumeRecord<Request>, signal?: AbortSignal): Promise<void>;
  /** Mounts a known volume again, by a record that replaces its own. Where that fails, the volume is as it was. */
  remount(record: VolumeRecord<Request>): Promise<void>;
  /** Replaces the record of a mounted volume. */
  amend(record: VolumeRecord<Request>): Promise<void>;
  /** Refuses the tokens of a volume from now on, which has to be ended then. */
  revoke(volumeId: string): void;
  /**
   * Refuses the tokens of a volume from now on, known or not, and unmounts it. Where that fails, the volume is ending.
   * @throws the error of the unmount
   */
  end(request: UnpublishRequest): Promise<EndedVolume>;
}

/**
 * Creates the recorded volumes. A record is written before its volume is mounted, and removed after the volume is
 * unmounted. In between it is marked as in doubt, so that the next process can tell a volume that is in use from one
 * whose mount or end was interrupted.
 */
export function createRecordedVolumes<Request extends RecordedRequest>(
  options: RecordedVolumesOptions<Request>,
): RecordedVolumes<Request> {
  const { records } = options;
  const volumes = new Map(options.held.map((held) => [held.record.request.volumeId, held]));

  const set = (record: VolumeRecord<Request>, state: VolumeState): void => {
    volumes.set(record.request.volumeId, { record, state });
  };
  const forget = async (volumeId: string): Promise<void> => {
    volumes.delete(volumeId);
    await records.remove(volumeId);
  };
  const revoke = (volumeId: string): void => {
    const known = volumes.get(volumeId);
    if (known !== undefined) set(known.record, "ending");
  };

  return {
    get: (volumeId) => volumes.get(volumeId),
    all: () => volumes.values(),
    revoke,

    async amend(record) {
      await records.save(record);
      set(record, "mounted");
    },

    async mount(record, signal) {
      const { volumeId } = record.request;
      await records.save({ ...record, inDoubt: true });
      set(record, "mounting");
      try {
        await options.publish(record, signal);
      } catch (error) {
        await forget(volumeId);
        throw error;
      }
      try {
        // A caller that is gone by now takes the mount for failed.
        signal?.throwIfAborted();
        await records.save(record);
        set(record, "mounted");
      } catch (error) {
        set(record, "ending");
        throw error;
      }
    },

    async remount(record) {
      const before = volumes.get(record.request.volumeId);
      set(record, "mounting");
      try {
        await options.publish(record);
        await records.save(record);
        set(record, "mounted");
      } catch (error) {
        if (before !== undefined) set(before.record, before.state);
        throw error;
      }
    },

    async end(request) {
      const { volumeId } = request;
      revoke(volumeId);
      const known = volumes.get(volumeId)?.record;
      if (known !== undefined) {
        // A full disk takes no mark, but lets the record go: the next process must not take the volume for mounted.
        await records.save({ ...known, inDoubt: true }).catch(() => records.remove(volumeId));
      }
      const ended = await options.end(request, known);
      await forget(volumeId);
      return ended;
    },
  };
}
