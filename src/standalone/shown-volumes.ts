import type {
  EndedVolume,
  RecordedRequest,
  RecordedVolumesOptions,
  UnpublishRequest,
  VolumeRecord,
} from "./volume-records.ts";

/** How volumes are mounted and ended, and are shown in folders of users. */
export interface ShownVolumesOptions<Request extends RecordedRequest> {
  /** The publish of the csi room. A first publish that fails undoes what it has begun. */
  readonly publish: (request: Request, signal?: AbortSignal) => Promise<void>;
  /** Removes a volume's files and unmounts it. One that isn't mounted is no error. */
  readonly end: (request: UnpublishRequest) => Promise<EndedVolume>;
  /** Mounts the volume at a place in a folder of a user, too. A call that fails leaves nothing in it. */
  readonly show: (place: string, folder: string, uid: number) => Promise<void>;
  /** Ends all that `show` has mounted of the volume at a place. */
  readonly hide: (place: string) => Promise<void>;
}

/**
 * Mounts and ends volumes together with what their owners see of them.
 * @param withToken gives the request of a volume a token
 */
export function createShownVolumes<Request extends RecordedRequest>(
  options: ShownVolumesOptions<Request>,
  withToken: (record: VolumeRecord<Request>) => Promise<Request>,
): Pick<RecordedVolumesOptions<Request>, "publish" | "end"> {
  return {
    async publish(record, signal) {
      const { request, origin, shownAt } = record;
      await options.publish(await withToken(record), signal);
      if (shownAt === undefined) return;
      try {
        await options.show(request.targetPath, shownAt, origin?.uid ?? 0);
      } catch (error) {
        await options.end(request);
        throw error;
      }
    },
    async end(request, record) {
      if (record?.shownAt !== undefined) await options.hide(request.targetPath);
      return options.end(request);
    },
  };
}
