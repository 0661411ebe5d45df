import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { isAbsolute, join, resolve } from "node:path";
import { parseJson, property } from "../connector/document.ts";
import { readPrivateFile, removePrivateFile, writePrivateFile } from "./private-file.ts";

/** What the keeper knows of a request to publish; the rest of it is kept as it is. */
export interface RecordedRequest {
  readonly volumeId: string;
  readonly targetPath: string;
  readonly volumeContext: Readonly<Record<string, string>>;
  readonly secrets: Readonly<Record<string, string>>;
}

/** A volume as it is remembered across restarts. */
export interface VolumeRecord<Request extends RecordedRequest> {
  /** Names this mount in its tokens. */
  readonly mount: string;
  /**
   * A mount or an unmount was begun and has not ended. Whoever asked for it has no answer yet, and
   * gets none from a process that was killed, so the next one ends it by an unmount.
   */
  readonly inDoubt: boolean;
  /** Without secrets. */
  readonly request: Request;
}

/** Records of volumes, in a folder of their own. */
export interface VolumeRecordStore<Request extends RecordedRequest> {
  /** All records, and the files that hold none. */
  load(): Promise<LoadedRecords<Request>>;
  /** Only for what `isVolumeId` allows. */
  save(record: VolumeRecord<Request>): Promise<void>;
  /** One that isn't there is no error. */
  remove(volumeId: string): Promise<void>;
}

export interface LoadedRecords<Request extends RecordedRequest> {
  readonly records: readonly VolumeRecord<Request>[];
  readonly damaged: readonly string[];
}

/** Volume ids are file names here. */
export const isVolumeId = (text: string): boolean =>
  /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(text);

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

/** The parts of the request that the keeper does not know are taken as they were saved. */
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
 * The id of the volume at a target path: whoever unmounts knows the path alone. Symbolic links are
 * not followed, so both sides have to resolve those in the path's parents first.
 * @throws TypeError for a relative path, which means another place in another process
 */
export function volumeIdOf(targetPath: string): string {
  if (!isAbsolute(targetPath)) throw new TypeError("a volume's target is an absolute path");
  return createHash("sha256").update(resolve(targetPath)).digest("hex").slice(0, 32);
}

export interface UnpublishRequest {
  readonly volumeId: string;
  readonly targetPath: string;
}

export interface RecordedVolumesOptions<Request extends RecordedRequest> {
  readonly records: VolumeRecordStore<Request>;
  /** What was recorded by an earlier process. */
  readonly recorded: readonly VolumeRecord<Request>[];
  /** One that fails undoes what it has begun. */
  readonly publish: (record: VolumeRecord<Request>, signal?: AbortSignal) => Promise<void>;
  /** A volume that isn't mounted is no error. */
  readonly unpublish: (request: UnpublishRequest) => Promise<void>;
}

/** Mounted volumes and their records, which agree whenever the process may be killed. */
export interface RecordedVolumes<Request extends RecordedRequest> {
  get(volumeId: string): VolumeRecord<Request> | undefined;
  all(): Iterable<VolumeRecord<Request>>;
  /** Mounts a volume that isn't known. Where that fails it is unknown again, or in doubt. */
  mount(record: VolumeRecord<Request>, signal?: AbortSignal): Promise<void>;
  /** Unmounts a volume, known or not. Where that fails it stays as it is. */
  unmount(request: UnpublishRequest): Promise<void>;
}

/**
 * A record is written before its volume is mounted, and removed after it is unmounted. Meanwhile it is
 * marked as in doubt, so that the next process can tell a volume that somebody counts on from one whose
 * mount or unmount was cut short.
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
      // A tool may show its token before the publish has ended.
      volumes.set(volumeId, record);
      try {
        await options.publish(record, signal);
      } catch (error) {
        await forget(volumeId);
        throw error;
      }
      try {
        // Whoever has gone by now takes it for failed.
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
