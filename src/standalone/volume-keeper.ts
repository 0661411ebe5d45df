import { isDeepStrictEqual } from "node:util";
import { createKeyedQueue } from "../concurrency.ts";
import { showRef } from "../connector/connector-ref.ts";
import type { Result } from "../connector/platform.ts";
import { describeProblems } from "../connector/problem.ts";
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

export interface VolumeKeeperOptions<Request extends RecordedRequest> {
  /** The csi role's own. A first one that fails undoes what it has begun. */
  readonly publish: (request: Request, signal?: AbortSignal) => Promise<void>;
  /** The csi role's own. A volume that isn't mounted is no error. */
  readonly unpublish: (request: UnpublishRequest) => Promise<void>;
  readonly records: VolumeRecordStore<Request>;
  readonly signToken: SignToken;
  /** Under which the csi role looks for its token. */
  readonly audience: string;
  /**
   * Seconds, for volumes without a `token.expiration`. A token is renewed when a quarter of it is used
   * up, so a tool that reads its token once and never again (buildctl) has three quarters at least.
   * Hours are right: an unmount takes a token back long before, and it opens this proxy alone.
   */
  readonly tokenLifetimeSeconds: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Random, different each time. */
  readonly createMountId: () => string;
  readonly every: Every;
  readonly log: Log;
}

/** The part of the kubelet: it gives volumes their tokens, and keeps fresh what is mounted. */
export interface VolumeKeeper<Request extends RecordedRequest> {
  /**
   * Mounts a volume, or brings a mounted one up to date. Another request for a mounted volume
   * replaces it: that is an unmount and a new mount, so tokens of the old one are refused; where the
   * new one fails, the old one is put back. A refusal says what is wrong with the request.
   * @throws what the csi role throws; then nothing has changed
   */
  publish(request: Request, signal?: AbortSignal): Promise<Result<void>>;
  /**
   * Unmounts a volume, mounted or not, and from then on its tokens are refused.
   * @throws what the csi role throws; then the volume stays
   */
  unpublish(request: UnpublishRequest): Promise<void>;
  /** Whether a token of this mount may still be accepted. */
  isMounted(volumeId: string, mount: string): boolean;
  /** Brings the volumes of these connectors (`namespace/name`) up to date. */
  connectorsChanged(refs: ReadonlySet<string>): void;
  /** Refreshes nothing any more. Volumes stay mounted, for the next process to go on with. */
  stop(): Promise<void>;
}

const tokensKey = "csi.storage.k8s.io/serviceAccount.tokens";

/**
 * Takes up all recorded volumes again, as the mounts that their tokens name, and goes on keeping
 * them; what a killed process has left in doubt is unmounted.
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
  /** Asked before the token is signed: its life begins there, however long the publish takes. */
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
    unpublish: (request) => queue.run(request.volumeId, () => unmount(request)),
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

/** The request as it reads from a record, so that the two can be compared. */
function withoutSecrets<Request extends RecordedRequest>(request: Request): Request {
  return JSON.parse(JSON.stringify({ ...request, secrets: {} }));
}

function fieldsOf({ volumeId, targetPath }: Partial<RecordedRequest>): LogFields {
  return {
    ...(volumeId === undefined ? {} : { volume: volumeId }),
    ...(targetPath === undefined ? {} : { target: targetPath }),
  };
}

/** What a volume's token has to be. */
export interface TokenSpec {
  /** What it opens, as `namespace/name`. */
  readonly connectors: readonly string[];
  /** Seconds. */
  readonly lifetimeSeconds: number;
}

/** Reads them from a request as the csi role does, or says all that is wrong with it. */
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
