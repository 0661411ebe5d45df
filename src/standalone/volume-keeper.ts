import { isDeepStrictEqual } from "node:util";
import { createKeyedQueue } from "../concurrency.ts";
import { showRef } from "../connector/connector-ref.ts";
import type { Result } from "../connector/platform.ts";
import { describeProblems, show } from "../connector/problem.ts";
import { parseVolumeAttributes } from "../connector/volume-attributes.ts";
import type { Log, LogFields } from "../log.ts";
import { namespaceIfAbsent } from "./folder-documents.ts";
import { createRefreshSchedule, type Every } from "./refresh-schedule.ts";
import type { SignToken } from "./tokens.ts";
import {
  createRecordedVolumes,
  isVolumeId,
  type RecordedRequest,
  type UnpublishRequest,
  type VolumeRecord,
  type VolumeRecordStore,
} from "./volume-records.ts";

/** What a keeper of volumes works with. */
export interface VolumeKeeperOptions<Request extends RecordedRequest> {
  /** The publish of the csi room. A first publish that fails undoes what it has begun. */
  readonly publish: (request: Request, signal?: AbortSignal) => Promise<void>;
  /** The unpublish of the csi room. A volume that isn't mounted is no error. */
  readonly unpublish: (request: UnpublishRequest) => Promise<void>;
  /** The target without symbolic links in its parents, or undefined where its parent is no folder. */
  readonly resolveTarget: (path: string) => Promise<string | undefined>;
  readonly records: VolumeRecordStore<Request>;
  readonly signToken: SignToken;
  /** The audience under which the csi room looks for the token. */
  readonly audience: string;
  /**
   * The lifetime of tokens of volumes without a `token.expiration`. A token is renewed when a quarter of its lifetime
   * has passed, so a tool that reads its token only once (buildctl) has three quarters at least.
   * Hours are safe: an unmount revokes a token long before, and it opens this proxy alone.
   */
  readonly tokenLifetimeSeconds: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Creates a random id, different each time. */
  readonly createMountId: () => string;
  readonly every: Every;
  readonly log: Log;
}

/** Does the kubelet's part: it passes volumes their tokens, and refreshes mounted volumes. */
export interface VolumeKeeper<Request extends RecordedRequest> {
  /**
   * Mounts a volume, or refreshes a mounted one. A different request for a mounted volume
   * replaces it by an unmount and a new mount, so tokens of the old mount are refused. Where the
   * new mount fails, the old one is restored. A refusal says what is wrong with the request.
   * @throws the error of the csi room; nothing has changed then
   */
  publish(request: Request, signal?: AbortSignal): Promise<Result<void>>;
  /**
   * Unmounts a volume, and from then on its tokens are refused. A volume that isn't mounted is no error. A refusal says
   * where the volume is, when that is not the target that the request names; the volume stays then.
   * @throws the error of the csi room; the volume stays then, too
   */
  unpublish(request: UnpublishRequest): Promise<Result<void>>;
  /** Whether a volume is mounted, or was begun to be, by this process or an earlier one. */
  knows(volumeId: string): boolean;
  /** Whether tokens of a mount are still valid. */
  isMounted(volumeId: string, mount: string): boolean;
  /** Refreshes the volumes of changed connectors (`namespace/name`). */
  connectorsChanged(refs: ReadonlySet<string>): void;
  /** Ends the refreshes. Volumes stay mounted, and the next process takes them over. */
  stop(): Promise<void>;
}

const tokensKey = "csi.storage.k8s.io/serviceAccount.tokens";

/**
 * Takes over all recorded volumes, under the mount ids that their tokens name, and refreshes them from then on. Volumes
 * that a killed process has left in doubt are unmounted.
 */
export async function startVolumeKeeper<Request extends RecordedRequest>(
  options: VolumeKeeperOptions<Request>,
): Promise<VolumeKeeper<Request>> {
  type Volume = VolumeRecord<Request>;
  const { log, now } = options;
  const queue = createKeyedQueue();

  const specOf = ({ request }: Volume): TokenSpec => {
    const spec = tokenSpecOf(request, options.tokenLifetimeSeconds);
    if (spec.ok) return spec.value;
    throw new Error(`the recorded volume can't be mounted any more: ${spec.reason}`);
  };
  /** When a token that is signed now is due for renewal. Called before the publish, which may take its time. */
  const dueAt = (volume: Volume): number => now() + (specOf(volume).lifetimeSeconds * 1000) / 4;

  const publishWithToken = async (volume: Volume, signal?: AbortSignal): Promise<void> => {
    const { mount, request } = volume;
    const { connectors, lifetimeSeconds } = specOf(volume);
    const holder = { volumeId: request.volumeId, mount, connectors };
    const { token, expiresAt } = await options.signToken(holder, lifetimeSeconds);
    const tokens = { [options.audience]: { token, expirationTimestamp: expiresAt.toISOString() } };
    const secrets = { [tokensKey]: JSON.stringify(tokens) };
    await options.publish({ ...request, secrets }, signal);
  };

  const loaded = await options.records.load();
  for (const file of loaded.damaged) {
    const message = "a damaged record is ignored: mount its volume again, or remove the file";
    log("error", message, { file });
  }
  const volumes = createRecordedVolumes({
    records: options.records,
    recorded: loaded.records,
    publish: publishWithToken,
    unpublish: options.unpublish,
  });

  const mount = async (volume: Volume, signal?: AbortSignal): Promise<void> => {
    const { volumeId } = volume.request;
    const due = dueAt(volume);
    try {
      await volumes.mount(volume, signal);
      schedule.set(volumeId, due);
    } catch (error) {
      if (volumes.get(volumeId) !== undefined) schedule.set(volumeId, now());
      throw error;
    }
  };
  const unmount = async (request: UnpublishRequest): Promise<void> => {
    await volumes.unmount(request);
    schedule.forget(request.volumeId);
  };
  const replace = async (old: Volume, volume: Volume, signal?: AbortSignal): Promise<void> => {
    await unmount(old.request);
    try {
      await mount(volume, signal);
    } catch (error) {
      const isGone = volumes.get(old.request.volumeId) === undefined;
      if (isGone && !old.inDoubt) await mount(old).catch((lost: unknown) => logLoss(old, lost));
      throw error;
    }
  };
  const logLoss = ({ request }: Volume, error: unknown): void =>
    log("error", "the volume that was being replaced is lost", { ...fieldsOf(request), error });

  const isSamePlace = async (one: string, other: string): Promise<boolean> => {
    if (one === other) return true;
    const place = await options.resolveTarget(one);
    return place !== undefined && place === (await options.resolveTarget(other));
  };

  const bringUpToDate = async (volumeId: string): Promise<number> => {
    const volume = volumes.get(volumeId);
    if (volume?.inDoubt === false) {
      const due = dueAt(volume);
      await publishWithToken(volume);
      return due;
    }
    if (volume !== undefined) await unmount(volume.request);
    return Number.POSITIVE_INFINITY;
  };
  const schedule = createRefreshSchedule({
    refresh: (volumeId) => queue.run(volumeId, () => bringUpToDate(volumeId)),
    now,
    every: options.every,
    log,
    fieldsOf: (volumeId) => fieldsOf(volumes.get(volumeId)?.request ?? { volumeId }),
  });
  for (const { request } of volumes.all()) schedule.set(request.volumeId, now());

  return {
    async publish(request, signal) {
      const spec = tokenSpecOf(request, options.tokenLifetimeSeconds);
      if (!spec.ok) return spec;
      const recorded = withoutSecrets(request);
      await queue.run(request.volumeId, async () => {
        const known = volumes.get(request.volumeId);
        const volume = { mount: options.createMountId(), inDoubt: false, request: recorded };
        if (known === undefined) await mount(volume, signal);
        else if (known.inDoubt || !isDeepStrictEqual(known.request, recorded)) {
          await replace(known, volume, signal);
        } else {
          const due = dueAt(known);
          await publishWithToken(known, signal);
          schedule.set(request.volumeId, due);
        }
      });
      return { ok: true, value: undefined };
    },
    unpublish: (request) =>
      queue.run(request.volumeId, async () => {
        const target = volumes.get(request.volumeId)?.request.targetPath;
        if (target !== undefined && !(await isSamePlace(target, request.targetPath))) {
          const reason = `volume_id ${show(request.volumeId)} is mounted at ${show(target)}, not at ${show(request.targetPath)}: it stays as it is; name the id and the path of one volume`;
          return { ok: false, reason };
        }
        await unmount(request);
        return { ok: true, value: undefined };
      }),
    knows: (volumeId) => volumes.get(volumeId) !== undefined,
    isMounted(volumeId, mount) {
      const volume = volumes.get(volumeId);
      return volume?.mount === mount && !volume.inDoubt;
    },
    connectorsChanged(refs) {
      for (const volume of volumes.all()) {
        const spec = tokenSpecOf(volume.request, options.tokenLifetimeSeconds);
        const isMeant = spec.ok && spec.value.connectors.some((ref) => refs.has(ref));
        if (isMeant) schedule.expedite(volume.request.volumeId);
      }
    },
    async stop() {
      schedule.stop();
      await queue.idle();
    },
  };
}

/** The request without secrets and as JSON has it, so that it can be compared with a recorded one. */
function withoutSecrets<Request extends RecordedRequest>(request: Request): Request {
  return JSON.parse(JSON.stringify({ ...request, secrets: {} }));
}

function fieldsOf({ volumeId, targetPath }: Partial<RecordedRequest>): LogFields {
  return {
    ...(volumeId === undefined ? {} : { volume: volumeId }),
    ...(targetPath === undefined ? {} : { target: targetPath }),
  };
}

/** What a volume's token has to be like. */
export interface TokenSpec {
  /** The connectors that the token opens, as `namespace/name`. */
  readonly connectors: readonly string[];
  readonly lifetimeSeconds: number;
}

/** The token that a request needs, by the same attributes as in the csi room, or everything that is wrong with the request. */
export function tokenSpecOf(
  { volumeId, volumeContext }: RecordedRequest,
  lifetimeSecondsIfAbsent: number,
): Result<TokenSpec> {
  if (!isVolumeId(volumeId)) {
    return { ok: false, reason: "volume_id: wanted 1 to 128 letters, digits and . _ -" };
  }
  const namespace = volumeContext["csi.storage.k8s.io/pod.namespace"] || namespaceIfAbsent;
  const attributes = parseVolumeAttributes(volumeContext, namespace);
  if (!attributes.ok) return { ok: false, reason: describeProblems(attributes.problems) };
  const { connectors, tokenLifetimeSeconds = lifetimeSecondsIfAbsent } = attributes.value;
  return {
    ok: true,
    value: { connectors: connectors.map(showRef), lifetimeSeconds: tokenLifetimeSeconds },
  };
}
