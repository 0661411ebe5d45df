import type { Log } from "../log.ts";
import type { Every } from "./refresh-schedule.ts";
import type { TargetPlaces } from "./target-places.ts";
import { type MachineView, whyLifeIsOver } from "./volume-life.ts";
import type {
  HeldVolume,
  RecordedRequest,
  RecordedVolumes,
  UnpublishRequest,
  VolumeRecord,
} from "./volume-records.ts";

/** What volumes are watched with. */
export interface VolumeWatchOptions<Request extends RecordedRequest>
  extends Pick<MachineView, "boot" | "processStart">,
    Pick<TargetPlaces, "mountPoints" | "resolveTarget"> {
  readonly volumes: Pick<RecordedVolumes<Request>, "all" | "get">;
  /** Is called with a volume whose life is over, and with why. */
  readonly revoke: (volume: VolumeRecord<Request>, reason: string) => void;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly every: Every;
  readonly log: Log;
}

/** Looks once a second for volumes whose life is over. */
export interface VolumeWatch {
  /** Looks now. */
  look(): Promise<void>;
  stop(): void;
}

/** Why a volume is over that somebody else has unmounted. */
export const notMounted = "nothing is mounted at its target any more";

/** A look reads one file of the kernel's, and one more for each volume that ends with a process. */
const lookMs = 1000;

/** Starts to watch volumes. */
export function createVolumeWatch<Request extends RecordedRequest>(
  options: VolumeWatchOptions<Request>,
): VolumeWatch {
  const { volumes, log } = options;

  /** The table has paths without symbolic links, and a request of CSI may have others. */
  const isAmong = async (
    mountPoints: ReadonlySet<string>,
    { targetPath }: UnpublishRequest,
  ): Promise<boolean> => {
    if (mountPoints.has(targetPath)) return true;
    const resolved = await options.resolveTarget(targetPath).catch(() => undefined);
    return resolved !== undefined && mountPoints.has(resolved);
  };

  const whyOver = async (
    { record, state }: HeldVolume<Request>,
    mountPoints: ReadonlySet<string>,
  ): Promise<string | undefined> => {
    const view = { ...options, now: options.now() };
    const reason = record.life === undefined ? undefined : await whyLifeIsOver(record.life, view);
    if (reason !== undefined || state === "away") return reason;
    const { shownAt } = record;
    if (shownAt !== undefined && !mountPoints.has(shownAt)) return notMounted;
    return (await isAmong(mountPoints, record.request)) ? undefined : notMounted;
  };

  const look = async (): Promise<void> => {
    const seen = [...volumes.all()].filter(({ state }) => state === "mounted" || state === "away");
    if (seen.length === 0) return;
    // The table is read after the volumes, so it has every one that was mounted by then.
    const mountPoints = await options.mountPoints();
    for (const volume of seen) {
      const reason = await whyOver(volume, mountPoints);
      const isSame = volumes.get(volume.record.request.volumeId) === volume;
      if (reason !== undefined && isSame) options.revoke(volume.record, reason);
    }
  };

  let isLooking = false;
  const stop = options.every(lookMs, () => {
    if (isLooking) return;
    isLooking = true;
    void look()
      .catch((error: unknown) => log("error", "mounted volumes can't be looked at", { error }))
      .finally(() => {
        isLooking = false;
      });
  });
  return { look, stop };
}
