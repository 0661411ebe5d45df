import type { RecordedRequest, VolumeRecord, VolumeRecords } from "./volume-record.ts";

export interface UnpublishRequest {
  readonly volumeId: string;
  readonly targetPath: string;
}

export interface RecordedVolumesOptions<Request extends RecordedRequest> {
  readonly records: VolumeRecords<Request>;
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
export function recordedVolumes<Request extends RecordedRequest>(
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
