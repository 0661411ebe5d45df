import { isDeepStrictEqual } from "node:util";
import { createKeyedQueue } from "../concurrency.ts";
import type { Result } from "../connector/platform.ts";
import { show } from "../connector/problem.ts";
import type { Log, LogFields } from "../log.ts";
import { type Caller, mayChange, refuseConnectors, refuseForeign } from "./caller.ts";
import { createRefreshSchedule, type Every } from "./refresh-schedule.ts";
import { createShownVolumes, type ShownVolumesOptions } from "./shown-volumes.ts";
import { isSamePlace, type TargetPlaces, whyNotAt } from "./target-places.ts";
import type { ProcessId, VolumeLife } from "./volume-life.ts";
import {
  createRecordedVolumes,
  type EndedVolume,
  type HeldVolume,
  type RecordedRequest,
  type UnpublishRequest,
  type VolumeOrigin,
  type VolumeRecord,
  type VolumeRecordStore,
  withoutSecrets,
} from "./volume-records.ts";
import { createVolumeTokens, type VolumeTokenOptions } from "./volume-token.ts";
import { createVolumeWatch, notMounted } from "./volume-watch.ts";

/** What a keeper of volumes works with. */
export interface VolumeKeeperOptions<Request extends RecordedRequest>
  extends VolumeTokenOptions,
    ShownVolumesOptions<Request>,
    TargetPlaces {
  /** Writes the files of a mounted volume again. @returns false where it is not mounted any more */
  readonly refresh: (request: Request) => Promise<boolean>;
  /** Whether a user may have a volume with these connectors (`namespace/name`). */
  readonly allows: (caller: Caller, connectors: readonly string[]) => boolean;
  /** The id of this boot of the machine. */
  readonly bootId: () => Promise<string>;
  /** When a process was started, in the kernel's ticks; undefined where none with that number runs. */
  readonly processStart: (pid: number) => Promise<number | undefined>;
  readonly records: VolumeRecordStore<Request>;
  /** Creates a random id, different each time. */
  readonly createMountId: () => string;
  readonly every: Every;
  readonly log: Log;
}

/** What the caller of a mount wants beside the volume itself. */
export interface MountTerms {
  /** For how many milliseconds the volume lives at most; undefined for no limit. */
  readonly lifetimeMs?: number;
  /** The process that the volume ends with. */
  readonly process?: ProcessId;
  /** Whether the volume is mounted again after a reboot. */
  readonly isPersistent: boolean;
  /** Whether a volume that is mounted at the target ends for this one. */
  readonly replaces: boolean;
  /** Whether the volume may hide files that are in its target. */
  readonly hidesFiles: boolean;
  /** A folder of the caller's in which the volume is mounted, too. */
  readonly shownAt?: string;
}

/** A volume as its owner sees it. */
export interface ListedVolume<Request extends RecordedRequest> {
  readonly request: Request;
  readonly origin: VolumeOrigin | undefined;
  readonly life: VolumeLife | undefined;
  readonly shownAt: string | undefined;
  /** `namespace/name` of each connector. */
  readonly connectors: readonly string[];
  /** When a token of it was presented last to this process, in milliseconds since 1970. */
  readonly lastUsedAt: number | undefined;
  /** Whether its token is good. It is not while the volume waits to be mounted or unmounted. */
  readonly isUsable: boolean;
}

/** Does the kubelet's part: it passes volumes their tokens, refreshes mounted volumes, and ends them. */
export interface VolumeKeeper<Request extends RecordedRequest> {
  /**
   * Publishes a volume as CSI has it: mounts it, or refreshes a mounted one. A different request for a mounted volume
   * replaces it, so tokens of the old mount are refused. Where the new mount fails, the old one is
   * restored. Such a volume lives until it is unpublished, or the machine is started again. A refusal says what is wrong
   * with the request.
   * @throws the error of the csi room; nothing has changed then
   */
  publish(caller: Caller, request: Request, signal?: AbortSignal): Promise<Result<void>>;
  /**
   * Mounts a volume where none is, on the caller's terms. A refusal says what is wrong with the request or the target.
   * @returns what ends the volume
   * @throws the error of the csi room; nothing has changed then
   */
  mount(
    caller: Caller,
    request: Request,
    terms: MountTerms,
    signal?: AbortSignal,
  ): Promise<Result<VolumeLife>>;
  /**
   * Ends a volume: its tokens are refused first, then its files go, then its mount. A volume that isn't mounted is no
   * error. A refusal says where the volume is, when that is not the target that the request names, or whose it is; the
   * volume stays then.
   * @throws the error of the csi room; a volume that was known is tried again then, and its tokens stay refused
   */
  unpublish(caller: Caller, request: UnpublishRequest): Promise<Result<EndedVolume>>;
  /** The volumes that the caller may see. */
  list(caller: Caller): readonly ListedVolume<Request>[];
  /** Whether a volume is mounted, or was begun to be, by this process or an earlier one. */
  knows(volumeId: string): boolean;
  /** Whether tokens of a mount are good. To ask so counts as a use of the volume. */
  admits(volumeId: string, mount: string): boolean;
  /** Refreshes the volumes of changed connectors (`namespace/name`). */
  connectorsChanged(refs: ReadonlySet<string>): void;
  /** Ends the refreshes. Volumes stay mounted, and the next process takes them over. */
  stop(): Promise<void>;
}

/**
 * Takes over all recorded volumes, under the mount ids that their tokens name, and refreshes them from then on. Volumes
 * end that a killed process has left in doubt, those whose life is over, and those of users who may not have them any
 * more: no token of these is good when this returns.
 */
export async function startVolumeKeeper<Request extends RecordedRequest>(
  options: VolumeKeeperOptions<Request>,
): Promise<VolumeKeeper<Request>> {
  type Volume = VolumeRecord<Request>;
  const { log, now, processStart } = options;
  const queue = createKeyedQueue();
  const tokens = createVolumeTokens(options);
  const boot = await options.bootId();
  /** By mount id, in milliseconds since 1970. */
  const usedAt = new Map<string, number>();

  const loaded = await options.records.load();
  for (const file of loaded.damaged) {
    const message = "a damaged record is ignored: mount its volume again, or remove the file";
    log("error", message, { file });
  }
  const volumes = createRecordedVolumes({
    records: options.records,
    held: loaded.records.map((record): HeldVolume<Request> => {
      const isAway = record.life !== undefined && record.life.boot !== boot;
      const isOver = record.inDoubt || !isStillAllowed(record);
      return { record, state: isOver ? "ending" : isAway ? "away" : "mounted" };
    }),
    ...createShownVolumes(options, tokens.withToken),
  });
  function isStillAllowed({ origin, request }: Volume): boolean {
    return options.allows({ uid: origin?.uid ?? 0 }, tokens.connectorsOf(request));
  }

  const mountVolume = async (volume: Volume, signal?: AbortSignal): Promise<void> => {
    const { volumeId } = volume.request;
    const due = tokens.dueAt(volume);
    try {
      await volumes.mount(volume, signal);
      schedule.set(volumeId, due);
    } catch (error) {
      if (volumes.get(volumeId) !== undefined) schedule.set(volumeId, now());
      usedAt.delete(volume.mount);
      throw error;
    }
  };
  const endVolume = async (request: UnpublishRequest): Promise<EndedVolume> => {
    const { volumeId } = request;
    const known = volumes.get(volumeId);
    try {
      const ended = await volumes.end(request);
      schedule.forget(volumeId);
      return ended;
    } catch (error) {
      if (known !== undefined) schedule.set(volumeId, now());
      throw error;
    } finally {
      usedAt.delete(known?.record.mount ?? "");
    }
  };
  const replaceVolume = async (
    old: HeldVolume<Request>,
    volume: Volume,
    signal?: AbortSignal,
  ): Promise<void> => {
    const { record, state } = old;
    await endVolume(record.request);
    try {
      await mountVolume(volume, signal);
    } catch (error) {
      const isGone = volumes.get(record.request.volumeId) === undefined;
      if (isGone && state === "mounted") {
        await mountVolume(record).catch((lost: unknown) => logLoss(record, lost));
      }
      throw error;
    }
  };
  const mountOrReplace = (
    known: HeldVolume<Request> | undefined,
    volume: Volume,
    signal?: AbortSignal,
  ): Promise<void> =>
    known === undefined ? mountVolume(volume, signal) : replaceVolume(known, volume, signal);
  const logLoss = ({ request }: Volume, error: unknown): void =>
    log("error", "the volume that was being replaced is lost", { ...fieldsOf(request), error });

  /** Refuses the tokens of a volume now. The schedule then removes its files and its mount. */
  const revoke = ({ request }: Volume, reason: string): void => {
    volumes.revoke(request.volumeId);
    log("info", "a volume has ended", { ...fieldsOf(request), reason });
    schedule.set(request.volumeId, now());
  };
  const refreshVolume = async (volume: Volume): Promise<number> => {
    const due = tokens.dueAt(volume);
    if (await options.refresh(await tokens.withToken(volume))) return due;
    revoke(volume, notMounted);
    return now();
  };
  /** Refreshes a mounted volume for a request that is its own. @returns false where it is another one, or not mounted */
  const refreshAlike = async (
    { record, state }: HeldVolume<Request>,
    request: Request,
  ): Promise<boolean> => {
    if (state !== "mounted" || !isDeepStrictEqual(record.request, request)) return false;
    const due = tokens.dueAt(record);
    const isMounted = await options.refresh(await tokens.withToken(record));
    if (isMounted) schedule.set(request.volumeId, due);
    return isMounted;
  };
  const bringUpToDate = async (volumeId: string): Promise<number> => {
    const volume = volumes.get(volumeId);
    if (volume === undefined) return Number.POSITIVE_INFINITY;
    const { record, state } = volume;
    if (state === "mounted") return refreshVolume(record);
    if (state === "away") {
      const due = tokens.dueAt(record);
      await volumes.remount(inThisBoot(record));
      return due;
    }
    await endVolume(record.request);
    return Number.POSITIVE_INFINITY;
  };
  /** The record for a mount in this boot. Nobody has a token of the mount before. */
  const inThisBoot = (volume: Volume): Volume =>
    volume.life === undefined
      ? volume
      : { ...volume, mount: options.createMountId(), life: { ...volume.life, boot } };
  const schedule = createRefreshSchedule({
    refresh: (volumeId) => queue.run(volumeId, () => bringUpToDate(volumeId)),
    now,
    every: options.every,
    log,
    fieldsOf: (volumeId) => fieldsOf(volumes.get(volumeId)?.record.request ?? { volumeId }),
  });
  for (const { record } of volumes.all()) schedule.set(record.request.volumeId, now());

  const watch = createVolumeWatch({ ...options, boot, volumes, revoke });
  await watch.look();
  await adoptOldRecords();
  /** Records of earlier versions get to know this boot, so that the next one can tell it from its own. */
  async function adoptOldRecords(): Promise<void> {
    for (const { record, state } of [...volumes.all()]) {
      if (record.life !== undefined || state !== "mounted") continue;
      // A full disk takes no change. The next start tries again.
      await volumes.amend({ ...record, life: { boot, persistent: false } }).catch(() => {});
    }
  }

  const lifeOn = (terms: MountTerms): VolumeLife => ({
    boot,
    persistent: terms.isPersistent,
    ...(terms.lifetimeMs === undefined ? {} : { endsAt: now() + terms.lifetimeMs }),
    ...(terms.process === undefined ? {} : { process: terms.process }),
  });
  const recordOf = (
    request: Request,
    caller: Caller,
    life: VolumeLife,
    shownAt?: string,
  ): Volume => ({
    mount: options.createMountId(),
    inDoubt: false,
    request,
    origin: { uid: caller.uid, mountedAt: now() },
    life,
    ...(shownAt === undefined ? {} : { shownAt }),
  });

  const mountOnTerms = async (
    caller: Caller,
    request: Request,
    terms: MountTerms,
    signal?: AbortSignal,
  ): Promise<Result<VolumeLife>> => {
    const life = lifeOn(terms);
    const known = volumes.get(request.volumeId);
    if (known !== undefined && !mayChange(caller, known.record)) {
      return refuseForeign(caller, known.record);
    }
    const isTaken = known !== undefined && known.state !== "ending";
    const hindrance = await whyNotAt(options, request.targetPath, {
      replaces: !isTaken || terms.replaces,
      hidesFiles: terms.hidesFiles,
    });
    if (hindrance !== undefined) return { ok: false, reason: hindrance };
    await mountOrReplace(known, recordOf(request, caller, life, terms.shownAt), signal);
    return { ok: true, value: life };
  };

  return {
    async publish(caller, request, signal) {
      const spec = tokens.specOf(request);
      if (!spec.ok) return spec;
      const recorded = withoutSecrets(request);
      return queue.run(request.volumeId, async (): Promise<Result<void>> => {
        const known = volumes.get(request.volumeId);
        if (known !== undefined && !mayChange(caller, known.record)) {
          return refuseForeign(caller, known.record);
        }
        if (known === undefined || !(await refreshAlike(known, recorded))) {
          const volume = recordOf(recorded, caller, { boot, persistent: false });
          await mountOrReplace(known, volume, signal);
        }
        return { ok: true, value: undefined };
      });
    },
    async mount(caller, request, terms, signal) {
      const spec = tokens.specOf(request);
      if (!spec.ok) return spec;
      if (!options.allows(caller, spec.value.connectors)) {
        return refuseConnectors(caller, spec.value.connectors);
      }
      const { process } = terms;
      if (process !== undefined && (await processStart(process.pid)) !== process.startTicks) {
        const reason = `the process that mounts volumes finds no process ${process.pid} that was started when the caller's was: it has ended, or it is in another PID namespace`;
        return { ok: false, reason };
      }
      const recorded = withoutSecrets(request);
      return queue.run(request.volumeId, () => mountOnTerms(caller, recorded, terms, signal));
    },
    unpublish: (caller, request) =>
      queue.run(request.volumeId, async (): Promise<Result<EndedVolume>> => {
        const known = volumes.get(request.volumeId);
        if (known !== undefined) {
          const target = known.record.request.targetPath;
          if (!(await isSamePlace(options, target, request.targetPath))) {
            const reason = `volume_id ${show(request.volumeId)} is mounted at ${show(target)}, not at ${show(request.targetPath)}: it stays as it is; name the id and the path of one volume`;
            return { ok: false, reason };
          }
          if (!mayChange(caller, known.record)) return refuseForeign(caller, known.record);
        }
        return { ok: true, value: await endVolume(request) };
      }),
    list: (caller) =>
      [...volumes.all()]
        .filter(({ record }) => mayChange(caller, record))
        .map(({ record, state }) => ({
          request: record.request,
          origin: record.origin,
          life: record.life,
          shownAt: record.shownAt,
          connectors: tokens.connectorsOf(record.request),
          lastUsedAt: usedAt.get(record.mount),
          isUsable: state === "mounted" || state === "mounting",
        })),
    knows: (volumeId) => volumes.get(volumeId) !== undefined,
    admits(volumeId, mount) {
      const volume = volumes.get(volumeId);
      const isGood = volume?.state === "mounted" || volume?.state === "mounting";
      if (!isGood || volume?.record.mount !== mount) return false;
      usedAt.set(mount, now());
      return true;
    },
    connectorsChanged(refs) {
      for (const { record } of volumes.all()) {
        const isMeant = tokens.connectorsOf(record.request).some((ref) => refs.has(ref));
        if (isMeant) schedule.expedite(record.request.volumeId);
      }
    },
    async stop() {
      schedule.stop();
      watch.stop();
      await queue.idle();
    },
  };
}

function fieldsOf({ volumeId, targetPath }: Partial<RecordedRequest>): LogFields {
  return {
    ...(volumeId === undefined ? {} : { volume: volumeId }),
    ...(targetPath === undefined ? {} : { target: targetPath }),
  };
}
