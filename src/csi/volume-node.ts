import { status } from "@grpc/grpc-js";
import { createKeyedQueue } from "../concurrency.ts";
import { show } from "../connector/problem.ts";
import { errorCode } from "../error-code.ts";
import type { Log, LogFields } from "../log.ts";
import type { NodeGetVolumeStatsRequest__Output as StatsRequest } from "./generated/csi/v1/NodeGetVolumeStatsRequest.ts";
import type { NodePublishVolumeRequest__Output as PublishRequest } from "./generated/csi/v1/NodePublishVolumeRequest.ts";
import type { NodeUnpublishVolumeRequest__Output as UnpublishRequest } from "./generated/csi/v1/NodeUnpublishVolumeRequest.ts";
import { findGeneration, writeGeneration } from "./generation.ts";
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
import { createVolumeMounts, type MountEffects, volumeSizeLimit } from "./volume-mounts.ts";
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
export function createVolumeNode(options: VolumeNodeOptions): VolumeNode {
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

  /** Removes a volume, unless the target holds another one, or what nobody can say the owner of. */
  const removeVolume = async (path: string, volumeId: string): Promise<boolean> => {
    const isTrusted = mayRemoveUnrecorded(volumeId);
    const wasMounted = await mounts.unmountAll(path, () => {
      const record = readRecord(path);
      if (record === undefined && !isTrusted) throw unknownOwner(path, volumeId);
      requireSameVolume("target_path", path, record, volumeId);
    });
    if (wasMounted || isTrusted) await removeMountPoint(path);
    conditions.forget(path);
    return wasMounted;
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
      }
      write(path, volume);
      log("info", "volume published", { ...fields, connectors: volume.connectors });
    } catch (error) {
      // CSI promises no unpublish after a failed publish, so nothing may stay behind.
      await remove(path).catch((error: unknown) =>
        log("error", "a failed publish could not be undone", { ...fields, error }),
      );
      throw error;
    }
  };

  const refresh = async (path: string, request: PublishRequest): Promise<void> => {
    const fields = fieldsOf(path, request);
    const record = readRecord(path);
    if (record !== undefined && record.volumeId !== request.volumeId) {
      const message = `target_path ${show(path)} holds the volume ${show(record.volumeId)}: unpublish it first`;
      throw new RpcError(status.ALREADY_EXISTS, message);
    }
    try {
      const volume = await renderVolume(options, request);
      if (write(path, volume)) {
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

  return {
    async publish(request, signal) {
      requireVolumeId(request);
      requireMountCapability(request);
      const path = await resolveTarget("target_path", request.targetPath);
      const publishTo = async (path: string): Promise<void> => {
        await checkMountPoint(path);
        const isMounted = await mounts.keepOne(path);
        const isPublished = isMounted && findGeneration(path) !== undefined;
        await (isPublished ? refresh(path, request) : begin(path, request, isMounted, signal));
      };
      try {
        if (path === undefined) throw missingParent(request.targetPath);
        await queue.run(path, () => publishTo(path), signal);
      } catch (error) {
        throw keepingRecord(error);
      }
    },

    async unpublish(request, signal) {
      requireVolumeId(request);
      const path = await resolveTarget("target_path", request.targetPath);
      if (path === undefined) return;
      const { volumeId } = request;
      const wasMounted = await queue.run(path, () => removeVolume(path, volumeId), signal);
      const fields = { volume: volumeId, target: path };
      if (wasMounted) log("info", "volume unpublished", fields);
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

/**
 * Writes the files of a volume.
 * @returns false where nothing has changed
 * @throws RpcError where the files don't fit
 */
function write(path: string, { files, access }: RenderedVolume): boolean {
  try {
    return writeGeneration(path, files, access);
  } catch (error) {
    if (errorCode(error) !== "ENOSPC") throw error;
    const message = `the files don't fit into the volume (${volumeSizeLimit}, old and new ones together): name fewer connectors or configurations`;
    throw new RpcError(status.RESOURCE_EXHAUSTED, message);
  }
}
