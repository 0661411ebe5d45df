import { accessSync, constants, statfsSync } from "node:fs";
import { status } from "@grpc/grpc-js";
import { createKeyedQueue } from "../concurrency.ts";
import { show } from "../connector/problem.ts";
import type { VolumeFiles } from "../connector/volume-files.ts";
import { attempt, errorCode, unless } from "../error-code.ts";
import type { Log, LogFields } from "../log.ts";
import type { NodeGetVolumeStatsRequest__Output as StatsRequest } from "./generated/csi/v1/NodeGetVolumeStatsRequest.ts";
import type { NodePublishVolumeRequest__Output as PublishRequest } from "./generated/csi/v1/NodePublishVolumeRequest.ts";
import type { NodeUnpublishVolumeRequest__Output as UnpublishRequest } from "./generated/csi/v1/NodeUnpublishVolumeRequest.ts";
import { emptyVolume, findGeneration, roomFor, writeGeneration } from "./generation.ts";
import { type PublishRecord, readRecord } from "./publish-record.ts";
import { type RenderedVolume, type RenderOptions, renderVolume } from "./render-volume.ts";
import {
  failedPrecondition,
  invalidArgument,
  keepingRecord,
  notFound,
  RpcError,
  toRpcError,
} from "./rpc-error.ts";
import { checkMountPoint, makeMountPoint, removeMountPoint, resolveTarget } from "./target-path.ts";
import { findUnusable } from "./volume-connectors.ts";
import {
  createVolumeMounts,
  type DetachedMounts,
  type MountEffects,
  type VolumeRoom,
} from "./volume-mounts.ts";
import { podOf } from "./volume-request.ts";
import {
  createVolumeConditions,
  describeExpiry,
  usageOf,
  type VolumeStats,
} from "./volume-stats.ts";

/** The volumes of one node. Calls for one target path run one after the other. */
export interface VolumeNode {
  /**
   * Mounts a volume and writes its files, or refreshes the files of a mounted volume. A published volume keeps its last
   * good files whatever happens, and a refresh that fails is no failure of the call until their token has expired.
   * @throws RpcError; a first publish that fails is undone by then. Its code is one after which the kubelet unpublishes
   *   the volume with its Pod, unless no kubelet can have made the request
   */
  publish(request: PublishRequest, signal?: AbortSignal): Promise<void>;
  /**
   * Unmounts a volume. One that is not mounted is no error.
   * @throws RpcError where something else is mounted at the path; with NOT_FOUND where that is another volume
   */
  unpublish(request: UnpublishRequest, signal?: AbortSignal): Promise<void>;
  /**
   * How full a volume is, and what is abnormal with it.
   * @throws RpcError with NOT_FOUND where no volume is mounted at the path, or another one
   */
  stats(request: StatsRequest, signal?: AbortSignal): Promise<VolumeStats>;
}

/** The volumes of a node, and what the keeper of standalone mode needs beside CSI. */
export interface KeptVolumeNode extends VolumeNode {
  /**
   * Refreshes a mounted volume as `publish` does, and mounts none.
   * @returns false where no volume is mounted at the path any more
   * @throws RpcError or Unavailable, as `publish` does
   */
  refresh(request: PublishRequest): Promise<boolean>;
  /**
   * Removes the files of a volume and unmounts it, also while somebody uses it. One that is not mounted is no error.
   * @throws RpcError as `unpublish` does
   */
  end(request: UnpublishRequest): Promise<DetachedMounts>;
}

/** What the volumes of a node are made with. */
export interface VolumeNodeOptions extends RenderOptions {
  readonly mounts: MountEffects;
  /**
   * Whether an unpublish of this volume may remove what no record at its target says the owner of: a mount of this
   * driver, or an empty folder. Any may by default, since after a reboot the kubelet alone knows whose a folder is.
   */
  readonly mayRemoveUnrecorded?: (volumeId: string) => boolean;
  readonly log: Log;
}

/**
 * Creates the volumes of a node. It keeps no state but the volumes' conditions, so a driver that was restarted goes on
 * with the volumes of the previous one.
 */
export function createVolumeNode(options: VolumeNodeOptions): KeptVolumeNode {
  const { findConnector, mayRemoveUnrecorded = () => true, log, now } = options;
  const mounts = createVolumeMounts(options.mounts);
  const conditions = createVolumeConditions(log);
  const queue = createKeyedQueue();

  const remove = async (path: string): Promise<boolean> => {
    const wasMounted = await mounts.unmountAll(path);
    await removeMountPoint(path);
    conditions.forget(path);
    return wasMounted;
  };

  /** @throws RpcError where the target holds another volume, or one that nobody can say the owner of */
  const requireRemovable = (path: string, volumeId: string): void => {
    const record = readRecord(path);
    if (record === undefined && !mayRemoveUnrecorded(volumeId)) throw unknownOwner(path, volumeId);
    requireSameVolume("target_path", path, record, volumeId);
  };
  const afterUnmount = async (
    path: string,
    { volumeId }: UnpublishRequest,
    wasMounted: boolean,
  ): Promise<void> => {
    if (wasMounted || mayRemoveUnrecorded(volumeId)) await removeMountPoint(path);
    conditions.forget(path);
    if (wasMounted) log("info", "volume unpublished", { volume: volumeId, target: path });
  };

  const withWritableView = async <T>(
    path: string,
    room: VolumeRoom | undefined,
    change: (root: string) => T,
  ): Promise<T> => {
    const view = await mounts.openWritable(path, room);
    try {
      return change(view.root);
    } finally {
      view.close();
    }
  };

  /** Removes the files of a volume. Where that fails, the volume is unmounted all the same. */
  const removeFiles = async (path: string, volumeId: string): Promise<void> => {
    try {
      if (!isReadOnly(path)) emptyVolume(path);
      else await withWritableView(path, undefined, emptyVolume);
    } catch (error) {
      const fields = { volume: volumeId, target: path, error };
      log("error", "the files of a volume that ends could not be removed", fields);
    }
  };

  /**
   * Writes the files of a volume.
   * @returns false where nothing has changed
   * @throws RpcError where the files don't fit
   */
  const write = async (
    path: string,
    { files, access, ...volume }: RenderedVolume,
  ): Promise<boolean> => {
    const room = missingRoom(path, files);
    const replaceFiles = (root: string): boolean => writeGeneration(root, files, access);
    try {
      if (isReadOnly(path)) return await withWritableView(path, room, replaceFiles);
      if (room !== undefined) await mounts.enlarge(path, room);
      const isChanged = replaceFiles(path);
      if (volume.isReadOnly) await mounts.protect(path);
      return isChanged;
    } catch (error) {
      throw errorCode(error) === "ENOSPC" ? tooLarge() : error;
    }
  };

  const begin = async (
    path: string,
    request: PublishRequest,
    isMounted: boolean,
    signal: AbortSignal | undefined,
  ): Promise<void> => {
    const fields = fieldsOf(path, request);
    try {
      const volume = await renderVolume(options, request);
      refuse(volume.objections);
      signal?.throwIfAborted();
      if (!isMounted) {
        await makeMountPoint(path);
        await mounts.mount(path, volume.access, volume.mountOptions);
        // The owner of files could change them, and what they lead to, before all are there.
        if (volume.access.owner !== undefined) await mounts.protect(path);
      }
      await write(path, volume);
      log("info", "volume published", { ...fields, connectors: volume.connectors });
    } catch (error) {
      // CSI promises no unpublish after a failed publish, so nothing may stay behind.
      await remove(path).catch((error: unknown) =>
        log("error", "a failed publish could not be undone", { ...fields, error }),
      );
      throw error;
    }
  };

  const update = async (path: string, request: PublishRequest): Promise<void> => {
    const fields = fieldsOf(path, request);
    const record = readRecord(path);
    if (record !== undefined && record.volumeId !== request.volumeId) {
      const message = `target_path ${show(path)} holds the volume ${show(record.volumeId)}: unpublish it first`;
      throw new RpcError(status.ALREADY_EXISTS, message);
    }
    try {
      const volume = await renderVolume(options, request);
      if (await write(path, volume)) {
        log("info", "volume refreshed", { ...fields, connectors: volume.connectors });
      }
      conditions.set(
        path,
        volume.objections.map(({ message }) => message),
        fields,
      );
    } catch (error) {
      const { message, cause, reason } = toRpcError(error);
      conditions.set(path, [`the volume keeps its last files: ${message}`], {
        ...fields,
        error: cause,
      });
      if (record !== undefined && record.tokenExpiresAt.getTime() > now()) return;
      throw new RpcError(status.UNAVAILABLE, `the volume's files are out of date: ${message}`, {
        reason,
      });
    }
  };

  const publishAt = async (
    path: string,
    request: PublishRequest,
    isMounted: boolean,
    signal?: AbortSignal,
  ): Promise<void> => {
    const isPublished = isMounted && findGeneration(path) !== undefined;
    await (isPublished ? update(path, request) : begin(path, request, isMounted, signal));
  };

  return {
    async publish(request, signal) {
      requireVolumeId(request);
      requireMountCapability(request);
      const path = await resolveTarget("target_path", request.targetPath);
      const publishTo = async (path: string): Promise<void> => {
        await checkMountPoint(path);
        await publishAt(path, request, await mounts.keepOne(path), signal);
      };
      try {
        if (path === undefined) throw missingParent(request.targetPath);
        await queue.run(path, () => publishTo(path), signal);
      } catch (error) {
        throw keepingRecord(error);
      }
    },

    async refresh(request) {
      const path = await resolveTarget("target_path", request.targetPath);
      if (path === undefined) return false;
      return queue.run(path, async () => {
        const isMounted = await mounts.keepOne(path);
        if (isMounted) await publishAt(path, request, isMounted);
        return isMounted;
      });
    },

    async unpublish(request, signal) {
      requireVolumeId(request);
      const path = await resolveTarget("target_path", request.targetPath);
      if (path === undefined) return;
      const unpublishNow = async (): Promise<void> => {
        const check = (): void => requireRemovable(path, request.volumeId);
        await afterUnmount(path, request, await mounts.unmountAll(path, check));
      };
      await queue.run(path, unpublishNow, signal);
    },

    async end(request) {
      requireVolumeId(request);
      const path = await resolveTarget("target_path", request.targetPath);
      if (path === undefined) return { wasMounted: false, isStillUsed: false };
      return queue.run(path, async () => {
        const detached = await mounts.detachAll(path, async () => {
          requireRemovable(path, request.volumeId);
          await removeFiles(path, request.volumeId);
        });
        await afterUnmount(path, request, detached.wasMounted);
        return detached;
      });
    },

    async stats(request, signal) {
      requireVolumeId(request);
      const path = await resolveTarget("volume_path", request.volumePath).catch((error) =>
        withoutVolume(request.volumePath, error),
      );
      const nothing = notFound(
        `volume_path ${show(request.volumePath)}: no volume is mounted there`,
      );
      if (path === undefined) throw nothing;
      const statsNow = async (): Promise<VolumeStats> => {
        if (!(await mounts.keepOne(path))) throw nothing;
        const record = readRecord(path);
        requireSameVolume("volume_path", path, record, request.volumeId);
        const found = [
          ...describeExpiry(record, now()),
          ...conditions.of(path),
          ...(await findUnusable(findConnector, record?.connectors ?? [])),
        ];
        return { ...(await usageOf(path)), abnormalities: [...new Set(found)] };
      };
      return queue.run(path, statsNow, signal);
    },
  };
}

const missingParent = (path: string): RpcError =>
  failedPrecondition(`target_path ${show(path)}: its parent folder does not exist; create it`);

function requireMountCapability({ volumeCapability }: PublishRequest): void {
  if (volumeCapability?.mount != null) return;
  const found = show(volumeCapability?.accessType);
  throw invalidArgument(
    `volume_capability: found ${found}, wanted mount: a block device can't hold files`,
  );
}

function requireVolumeId({ volumeId }: { readonly volumeId: string }): void {
  if (volumeId === "") throw invalidArgument("volume_id: found nothing, wanted the volume's id");
}

/**
 * CSI has NOT_FOUND for every path without a volume, so only a missing path is an invalid one.
 * @returns undefined for a path that can hold no volume
 * @throws RpcError where the path is empty; and every other error
 */
function withoutVolume(path: string, error: unknown): undefined {
  const isInvalid = error instanceof RpcError && error.code === status.INVALID_ARGUMENT;
  if (!isInvalid || path === "") throw error;
}

/** @throws RpcError with NOT_FOUND where the record at a path is another volume's */
function requireSameVolume(
  field: string,
  path: string,
  record: PublishRecord | undefined,
  volumeId: string,
): void {
  if (record === undefined || record.volumeId === volumeId) return;
  throw notFound(
    `${field} ${show(path)} holds the volume ${show(record.volumeId)}, not ${show(volumeId)}: it stays as it is; name the id and the path of one volume`,
  );
}

const unknownOwner = (path: string, volumeId: string): RpcError =>
  notFound(
    `target_path ${show(path)} holds a volume without a readable record, and this process knows no volume ${show(volumeId)}: it stays as it is; if nobody uses it, remove it with "umount"`,
  );

const fieldsOf = (path: string, request: PublishRequest): LogFields => ({
  volume: request.volumeId,
  target: path,
  pod: podOf(request),
});

/** @throws RpcError with the first objection's code and the sentences of all, unless there are none */
function refuse(objections: readonly RpcError[]): void {
  const [first] = objections;
  if (first === undefined) return;
  throw new RpcError(first.code, objections.map(({ message }) => message).join("; "));
}

/** How much fits into a volume at most. 64 connectors with all configurations need a fifth of it. */
const maxRoom: VolumeRoom = { bytes: 16 * 1024 * 1024, inodes: 8192 };

const tooLarge = (): RpcError =>
  new RpcError(
    status.RESOURCE_EXHAUSTED,
    `the files don't fit into the volume (${maxRoom.bytes / 1024 ** 2} MiB and ${maxRoom.inodes} files, old and new ones together): name fewer connectors or configurations`,
  );

/**
 * The room that a volume needs for its files and has not got.
 * @throws RpcError where they need more than a volume may have
 */
function missingRoom(path: string, files: VolumeFiles): VolumeRoom | undefined {
  const { bsize, blocks, files: inodes } = statfsSync(path);
  const needed = roomFor(files, bsize);
  if (needed.bytes > maxRoom.bytes || needed.inodes > maxRoom.inodes) throw tooLarge();
  const isEnough = needed.bytes <= blocks * bsize && needed.inodes <= inodes;
  return isEnough ? undefined : needed;
}

/** Whether the mount at a path is read-only, also for root. */
const isReadOnly = (path: string): boolean =>
  attempt(
    () => {
      accessSync(path, constants.W_OK);
      return false;
    },
    unless(true, "EROFS"),
  );
