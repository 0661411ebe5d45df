import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { isAbsolute, join, resolve } from "node:path";
import { parseJson, property } from "../connector/document.ts";
import { readPrivateFile, removePrivateFile, writePrivateFile } from "./private-file.ts";

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
}

/** Keeps the records of volumes in a folder of their own. */
export interface VolumeRecordStore<Request extends RecordedRequest> {
  /** Reads all records, and finds the files that are damaged. */
  load(): Promise<LoadedRecords<Request>>;
  /** Writes a record. The volume's id has to be one that `isVolumeId` allows. */
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
      await writePrivateFile(fileOf(record.request.volumeId), `${text}\n`);
    },
    async remove(volumeId) {
      if (isVolumeId(volumeId)) await removePrivateFile(fileOf(volumeId));
    },
  };
}

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
    Object.values(context).every((text) => typeof text === "string")
  );
}

/**
 * The id of the volume at a target path, which depends on nothing else, since whoever unmounts knows the path alone.
 * Symbolic links are not followed, so all callers have to resolve those in the path's parents first.
 * @throws TypeError for a relative path, which means another place in another process
 */
export function volumeIdOf(targetPath: string): string {
  if (!isAbsolute(targetPath)) throw new TypeError("a volume's target is an absolute path");
  return createHash("sha256").update(resolve(targetPath)).digest("hex").slice(0, 32);
}

/** A request to unpublish a volume. */
export interface UnpublishRequest {
  readonly volumeId: string;
  readonly targetPath: string;
}

/** What recorded volumes work with. */
export interface RecordedVolumesOptions<Request extends RecordedRequest> {
  readonly records: VolumeRecordStore<Request>;
  /** The records that an earlier process has left. */
  readonly recorded: readonly VolumeRecord<Request>[];
  /** Mounts a volume. A call that fails undoes what it has begun. */
  readonly publish: (record: VolumeRecord<Request>, signal?: AbortSignal) => Promise<void>;
  /** Unmounts a volume. One that isn't mounted is no error. */
  readonly unpublish: (request: UnpublishRequest) => Promise<void>;
}

/** Mounted volumes and their records, which stay consistent whenever the process is killed. */
export interface RecordedVolumes<Request extends RecordedRequest> {
  /** The record of a volume, or undefined where it is unknown. */
  get(volumeId: string): VolumeRecord<Request> | undefined;
  /** The records of all volumes. */
  all(): Iterable<VolumeRecord<Request>>;
  /** Mounts a volume that isn't known. Where that fails, the volume is unknown again, or in doubt. */
  mount(record: VolumeRecord<Request>, signal?: AbortSignal): Promise<void>;
  /** Unmounts a volume, known or not. Where that fails, the volume stays as it is. */
  unmount(request: UnpublishRequest): Promise<void>;
}

/**
 * Creates the recorded volumes. A record is written before its volume is mounted, and removed after the volume is
 * unmounted. In between it is marked as in doubt, so that the next process can tell a volume that is in use from one
 * whose mount or unmount was interrupted.
 */
export function createRecordedVolumes<Request extends RecordedRequest>(
  options: RecordedVolumesOptions<Request>,
): RecordedVolumes<Request> {
  const { records } = options;
  const volumes = new Map(options.recorded.map((record) => [record.request.volumeId, record]));

  const forget = async (volumeId: string): Promise<void> => {
    volumes.delete(volumeId);
    await records.remove(volumeId);
  };

  return {
    get: (volumeId) => volumes.get(volumeId),
    all: () => volumes.values(),

    async mount(record, signal) {
      const { volumeId } = record.request;
      await records.save({ ...record, inDoubt: true });
      // A tool may use its token before the publish has ended.
      volumes.set(volumeId, record);
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
      } catch (error) {
        volumes.set(volumeId, { ...record, inDoubt: true });
        throw error;
      }
    },

    async unmount(request) {
      const known = volumes.get(request.volumeId);
      const mark = async (inDoubt: boolean): Promise<void> => {
        // A full disk has no room for the mark, and must not keep a volume mounted.
        if (known?.inDoubt === false) await records.save({ ...known, inDoubt }).catch(() => {});
      };
      await mark(true);
      try {
        await options.unpublish(request);
      } catch (error) {
        await mark(false);
        throw error;
      }
      await forget(request.volumeId);
    },
  };
}
