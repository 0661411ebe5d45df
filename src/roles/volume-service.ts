import { randomBytes } from "node:crypto";
import { chmod, lstat, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { show } from "../connector/problem.ts";
import type { NodePublishVolumeRequest__Output as PublishRequest } from "../csi/generated/csi/v1/NodePublishVolumeRequest.ts";
import type { MountRequest__Output as MountRequest } from "../csi/generated/ociconnector/v1/MountRequest.ts";
import type { Volume } from "../csi/generated/ociconnector/v1/Volume.ts";
import type { VolumesHandlers } from "../csi/generated/ociconnector/v1/Volumes.ts";
import { failedPrecondition, invalidArgument, notFound, toRpcError } from "../csi/rpc-error.ts";
import { resolveTarget } from "../csi/target-path.ts";
import type { Unary } from "../csi/unary.ts";
import { readOnlyFlag } from "../csi/volume-request.ts";
import { errorCode, unless } from "../error-code.ts";
import type { Caller } from "../standalone/caller.ts";
import type { ListedVolume, MountTerms, VolumeKeeper } from "../standalone/volume-keeper.ts";
import { volumeIdOf } from "../standalone/volume-records.ts";

/** What the service of people's volumes works with. */
export interface VolumeServiceOptions {
  readonly keeper: VolumeKeeper<PublishRequest>;
  /** Who can call on the service's socket, and nobody else can. */
  readonly caller: Caller;
  /** Where volumes are mounted whose callers name no folder. Its parent has to exist. */
  readonly runFolder: string;
  readonly unary: Unary;
}

/** Creates the service that the commands mount, unmount, volumes and run call (`proto/volumes.proto`). */
export function createVolumeService(
  options: VolumeServiceOptions,
): Pick<VolumesHandlers, "Mount" | "Unmount" | "List"> {
  const { keeper, caller, unary } = options;
  return {
    Mount: unary("Mount", async (request, signal) => {
      const targetPath = await targetOf(request.targetPath || (await makePlace(options.runFolder)));
      const terms = termsOf(request);
      const mounted = await keeper.mount(
        caller,
        publishRequestOf(request, targetPath),
        terms,
        signal,
      );
      if (!mounted.ok) throw failedPrecondition(mounted.reason);
      return { targetPath, endsAtMs: mounted.value.endsAt ?? 0 };
    }),
    Unmount: unary("Unmount", async ({ targetPath }) => {
      // A job's folder may be gone already, and its volume has to end all the same.
      const path = (await resolveTarget("target_path", targetPath)) ?? targetPath;
      const volumeId = volumeIdOf(path);
      const isKnown = keeper.knows(volumeId);
      const ended = await keeper
        .unpublish(caller, { volumeId, targetPath: path })
        .catch((error: unknown) => {
          throw isKnown ? withRevocation(error) : error;
        });
      if (!ended.ok) throw failedPrecondition(ended.reason);
      const { wasMounted, isStillUsed } = ended.value;
      if (!isKnown && !wasMounted) {
        throw notFound(
          `no volume is mounted at ${show(path)}: "oci-connector volumes" lists those that are`,
        );
      }
      return { stillUsed: isStillUsed };
    }),
    List: unary("List", async () => ({ volumes: keeper.list(caller).map(describeVolume) })),
  };
}

/** An error of an unmount that has taken the token back all the same. */
function withRevocation(error: unknown): Error {
  const rpcError = toRpcError(error);
  rpcError.message = `the token of the volume is refused from now on, but its mount is still there, which is tried again: ${rpcError.message}`;
  return rpcError;
}

/** @throws RpcError where no volume can be at the path */
async function targetOf(path: string): Promise<string> {
  const resolved = await resolveTarget("target_path", path);
  if (resolved === undefined) {
    throw failedPrecondition(
      `target_path ${show(path)}: its parent folder does not exist; create it`,
    );
  }
  if (hasControlCharacter.test(resolved)) {
    throw invalidArgument(
      `target_path: found ${show(resolved)}, wanted a path without control characters, since files of the volume name it`,
    );
  }
  return resolved;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are looked for
const hasControlCharacter = /[\u0000-\u001f\u007f]/;

/**
 * A path for a volume whose caller names none. Nobody can list the folder around it, and everybody can pass through to
 * a volume whose name and group they have: the command of a `run` may run as another user.
 * @throws RpcError where the folder around it is not this process's alone
 */
async function makePlace(runFolder: string): Promise<string> {
  const made = await mkdir(runFolder)
    .then(() => true, unless(false, "EEXIST"))
    .catch((error: unknown) => {
      throw failedPrecondition(
        `the folder ${show(runFolder)} for volumes of "run" can't be made (${String(errorCode(error))}): name another one to the process by --run-folder`,
      );
    });
  if (made) await chmod(runFolder, 0o711);
  const found = await lstat(runFolder);
  const isOwn =
    found.isDirectory() && found.uid === process.getuid?.() && (found.mode & 0o022) === 0;
  if (!isOwn) {
    throw failedPrecondition(
      `${show(runFolder)}: found something that others may write to, wanted a folder of the user who runs the process: remove it, or name another one to the process by --run-folder`,
    );
  }
  return join(runFolder, randomBytes(8).toString("hex"));
}

const termsOf = (request: MountRequest): MountTerms => ({
  isPersistent: request.persistent,
  replaces: request.replace,
  hidesFiles: request.force,
  ...(request.lifetimeSeconds > 0 ? { lifetimeMs: request.lifetimeSeconds * 1000 } : {}),
  ...(request.process === null ? {} : { process: request.process }),
});

/** The request as a kubelet would make it. */
const publishRequestOf = (request: MountRequest, targetPath: string): PublishRequest => ({
  volumeId: volumeIdOf(targetPath),
  targetPath,
  stagingTargetPath: "",
  publishContext: {},
  readonly: true,
  secrets: {},
  volumeCapability: {
    accessType: "mount",
    accessMode: { mode: "SINGLE_NODE_WRITER" },
    mount: {
      fsType: "",
      mountFlags: request.readOnly ? [readOnlyFlag] : [],
      volumeMountGroup: request.group,
    },
  },
  volumeContext: {
    ...request.attributes,
    "csi.storage.k8s.io/ephemeral": "true",
    "csi.storage.k8s.io/pod.namespace": request.namespace,
  },
});

const describeVolume = (volume: ListedVolume<PublishRequest>): Volume => ({
  targetPath: volume.request.targetPath,
  connectors: [...volume.connectors],
  uid: volume.origin?.uid ?? 0,
  mountedAtMs: volume.origin?.mountedAt ?? 0,
  endsAtMs: volume.life?.endsAt ?? 0,
  pid: volume.life?.process?.pid ?? 0,
  persistent: volume.life?.persistent === true,
  readOnly: volume.request.volumeCapability?.mount?.mountFlags?.includes(readOnlyFlag) === true,
  lastUsedAtMs: volume.lastUsedAt ?? 0,
  usable: volume.isUsable,
});
