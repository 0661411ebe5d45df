import { status } from "@grpc/grpc-js";
import { createKeyedQueue } from "../concurrency.ts";
import { show } from "../connector/problem.ts";
import { errorCode } from "../error-code.ts";
import type { Log, LogFields } from "../log.ts";
import type { NodeGetVolumeStatsRequest__Output as StatsRequest } from "./generated/csi/v1/NodeGetVolumeStatsRequest.ts";
import type { NodePublishVolumeRequest__Output as PublishRequest } from "./generated/csi/v1/NodePublishVolumeRequest.ts";
import type { NodeUnpublishVolumeRequest__Output as UnpublishRequest } from "./generated/csi/v1/NodeUnpublishVolumeRequest.ts";
import { findGeneration, writeGeneration } from "./generation.ts";
import { readRecord } from "./publish-record.ts";
import { type RenderedVolume, type RenderOptions, renderVolume } from "./render-volume.ts";
import {
  failedPrecondition,
  invalidArgument,
  RpcError,
  toRpcError,
  unavailable,
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

/** The volumes of one node. Calls for one target path take place one after the other. */
export interface VolumeNode {
  /**
   * Mounts a volume and writes its files; for one that is mounted, brings the files up to date. A published volume
   * keeps its last good files whatever happens, and that is no failure until their token has expired.
   * @throws RpcError, Unavailable; whatever a first publish has begun is undone by then
   */
  publish(request: PublishRequest, signal?: AbortSignal): Promise<void>;
  /**
   * Takes a volume away; one that is not there is done already.
   * @throws RpcError
   */
  unpublish(request: UnpublishRequest, signal?: AbortSignal): Promise<void>;
  /** @throws RpcError */
  stats(request: StatsRequest, signal?: AbortSignal): Promise<VolumeStats>;
}

export interface VolumeNodeOptions extends RenderOptions {
  readonly mounts: MountEffects;
  readonly log: Log;
}

export function createVolumeNode(options: VolumeNodeOptions): VolumeNode {
  const { findConnector, log, now } = options;
  const mounts = createVolumeMounts(options.mounts);
  const conditions = createVolumeConditions(log);
  const queue = createKeyedQueue();

  const withdraw = async (path: string): Promise<boolean> => {
    const wasMounted = await mounts.unmountAll(path);
    await removeMountPoint(path);
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
      // After a final error the kubelet never calls unpublish, so nothing may stay behind.
      await withdraw(path).catch((error: unknown) =>
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
      const { message, cause } = toRpcError(error);
      conditions.set(path, [`the volume keeps its last files: ${message}`], {
        ...fields,
        error: cause,
      });
      if (record !== undefined && record.tokenExpiresAt.getTime() > now()) return;
      throw unavailable(`the volume's files are out of date: ${message}`);
    }
  };

  return {
    async publish(request, signal) {
      requireVolumeId(request);
      const path = await resolveTarget("target_path", request.targetPath);
      if (path === undefined) {
        throw failedPrecondition(
          `target_path ${show(request.targetPath)}: its parent folder does not exist; create it`,
        );
      }
      const publishNow = async (): Promise<void> => {
        await checkMountPoint(path);
        const isMounted = await mounts.keepOne(path);
        const isPublished = isMounted && findGeneration(path) !== undefined;
        await (isPublished ? refresh(path, request) : begin(path, request, isMounted, signal));
      };
      await queue.run(path, publishNow, signal);
    },

    async unpublish(request, signal) {
      requireVolumeId(request);
      const path = await resolveTarget("target_path", request.targetPath);
      if (path === undefined) return;
      const wasMounted = await queue.run(path, () => withdraw(path), signal);
      const fields = { volume: request.volumeId, target: path };
      if (wasMounted) log("info", "volume unpublished", fields);
    },

    async stats(request, signal) {
      requireVolumeId(request);
      const path = await resolveTarget("volume_path", request.volumePath);
      const nothing = new RpcError(
        status.NOT_FOUND,
        `volume_path ${show(request.volumePath)}: no volume is mounted there`,
      );
      if (path === undefined) throw nothing;
      const statsNow = async (): Promise<VolumeStats> => {
        if (!(await mounts.keepOne(path))) throw nothing;
        const record = readRecord(path);
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

function requireVolumeId({ volumeId }: { readonly volumeId: string }): void {
  if (volumeId === "") throw invalidArgument("volume_id: found nothing, wanted the volume's id");
}

const fieldsOf = (path: string, request: PublishRequest): LogFields => ({
  volume: request.volumeId,
  target: path,
  pod: podOf(request),
});

/** @throws RpcError that has the first objection's code and all sentences */
function refuse(objections: readonly RpcError[]): void {
  const [first] = objections;
  if (first === undefined) return;
  throw new RpcError(first.code, objections.map(({ message }) => message).join("; "));
}

/** @throws RpcError where the files don't fit */
function write(path: string, { files, access }: RenderedVolume): boolean {
  try {
    return writeGeneration(path, files, access);
  } catch (error) {
    if (errorCode(error) !== "ENOSPC") throw error;
    const message = `the files don't fit into the volume (${volumeSizeLimit}, old and new ones together): name fewer connectors or configurations`;
    throw new RpcError(status.RESOURCE_EXHAUSTED, message);
  }
}
