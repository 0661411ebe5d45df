import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { createKeyedQueue } from "../concurrency.ts";
import { show } from "../connector/problem.ts";
import type { NodePublishVolumeRequest__Output as PublishRequest } from "../csi/generated/csi/v1/NodePublishVolumeRequest.ts";
import type { MountRequest__Output as MountRequest } from "../csi/generated/ociconnector/v1/MountRequest.ts";
import type { MountResponse } from "../csi/generated/ociconnector/v1/MountResponse.ts";
import type { UnmountResponse } from "../csi/generated/ociconnector/v1/UnmountResponse.ts";
import type { Volume } from "../csi/generated/ociconnector/v1/Volume.ts";
import type { VolumesHandlers } from "../csi/generated/ociconnector/v1/Volumes.ts";
import { failedPrecondition, invalidArgument, notFound, toRpcError } from "../csi/rpc-error.ts";
import { resolveTarget } from "../csi/target-path.ts";
import type { Unary } from "../csi/unary.ts";
import { ownerFlag, readOnlyFlag } from "../csi/volume-request.ts";
import type { Caller } from "../standalone/caller.ts";
import type { ListedVolume, MountTerms, VolumeKeeper } from "../standalone/volume-keeper.ts";
import { type UnpublishRequest, volumeIdOf } from "../standalone/volume-records.ts";
import { makeRunFolder } from "./run-folder.ts";
import type { WhyNotForUser } from "./user-volumes.ts";

/** What the service of people's volumes works with. */
export interface VolumeServiceOptions {
  readonly keeper: VolumeKeeper<PublishRequest>;
  /** Who can call on the service's socket, and nobody else can. */
  readonly caller: Caller;
  /** Where volumes are mounted whose callers name no folder. Its parent has to exist. */
  readonly runFolder: string;
  /** What a caller who is not root may not ask for, as a sentence; undefined where all is right. */
  readonly whyNot: WhyNotForUser;
  readonly unary: Unary;
}

/** Creates the service that the commands mount, unmount, volumes and run call (`proto/volumes.proto`). */
export function createVolumeService(
  options: VolumeServiceOptions,
): Pick<VolumesHandlers, "Mount" | "Unmount" | "List"> {
  const { keeper, caller, unary } = options;
  const mount = caller.uid === 0 ? mountForRoot : createUserMount();
  return {
    Mount: unary("Mount", mount),
    Unmount: unary("Unmount", async ({ targetPath }) => {
      const shown = shownAt(targetPath);
      if (shown !== undefined) return unmount(shown.request, true);
      requireOwn(targetPath);
      // A job's folder may be gone already, and its volume has to end all the same.
      const path = (await resolveTarget("target_path", targetPath)) ?? targetPath;
      const volumeId = volumeIdOf(path);
      return unmount({ volumeId, targetPath: path }, keeper.knows(volumeId));
    }),
    List: unary("List", async () => ({ volumes: keeper.list(caller).map(describeVolume) })),
  };

  async function mountForRoot(request: MountRequest, signal: AbortSignal): Promise<MountResponse> {
    const targetPath = await targetOf(request.targetPath || (await makePlace(options.runFolder)));
    const published = publishRequestOf(request, targetPath);
    const mounted = await keeper.mount(caller, published, termsOf(request), signal);
    if (!mounted.ok) throw failedPrecondition(mounted.reason);
    return { targetPath, endsAtMs: mounted.value.endsAt ?? 0 };
  }

  /** One after the other, so that the number of a user's volumes is known while one is mounted. */
  function createUserMount(): typeof mountForRoot {
    const queue = createKeyedQueue();
    return (request, signal) => queue.run("mounts", () => mountForUser(request, signal), signal);
  }

  /** The volume itself is at a place that the user can't change, and is shown where they want it. */
  async function mountForUser(request: MountRequest, signal: AbortSignal): Promise<MountResponse> {
    const { targetPath } = request;
    refuseUnusualCharacters(targetPath);
    const reason = await options.whyNot(caller, request, keeper.list(caller).length);
    if (reason !== undefined) throw failedPrecondition(reason);
    await makeFree(targetPath, request.replace);
    const place = await makePlace(options.runFolder);
    const published = publishRequestOf(request, place, [readOnlyFlag, ownerFlag(caller.uid)]);
    const terms = termsOf(request);
    const shown = targetPath === "" ? terms : { ...terms, shownAt: targetPath };
    const mounted = await keeper.mount(caller, published, shown, signal);
    if (!mounted.ok) throw failedPrecondition(mounted.reason);
    return { targetPath: targetPath || place, endsAtMs: mounted.value.endsAt ?? 0 };
  }

  /** The caller's volume that is shown at a path. */
  function shownAt(path: string): ListedVolume<PublishRequest> | undefined {
    return keeper.list(caller).find((volume) => volume.shownAt === path);
  }

  /** Ends the user's volume at a path, if that is wanted. */
  async function makeFree(path: string, replaces: boolean): Promise<void> {
    const known = shownAt(path);
    if (known === undefined) return;
    if (!replaces) {
      throw failedPrecondition(
        `${show(path)} has a volume already: unmount that first, or add --replace`,
      );
    }
    await unmount(known.request, true);
  }

  /** A user who is not root learns of a path only whether a volume of theirs is there. */
  function requireOwn(path: string): void {
    if (caller.uid === 0 || keeper.list(caller).some(({ request }) => request.targetPath === path))
      return;
    throw notFound(
      `no volume of yours is mounted at ${show(path)}: "oci-connector volumes" lists those that are`,
    );
  }

  async function unmount(request: UnpublishRequest, isKnown: boolean): Promise<UnmountResponse> {
    const ended = await keeper.unpublish(caller, request).catch((error: unknown) => {
      throw isKnown ? withRevocation(error) : error;
    });
    if (!ended.ok) throw failedPrecondition(ended.reason);
    const { wasMounted, isStillUsed } = ended.value;
    if (isKnown || wasMounted) return { stillUsed: isStillUsed };
    throw notFound(
      `no volume is mounted at ${show(request.targetPath)}: "oci-connector volumes" lists those that are`,
    );
  }
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
  refuseUnusualCharacters(resolved);
  return resolved;
}

/** @throws RpcError where files of the volume can't name the path, or where it is not the one that was meant */
function refuseUnusualCharacters(path: string): void {
  if (hasControlCharacter.test(path)) {
    throw invalidArgument(
      `target_path: found ${show(path)}, wanted a path without control characters, since files of the volume name it`,
    );
  }
  if (path.includes(replacementCharacter)) {
    throw invalidArgument(
      `target_path: found ${show(path)}, wanted a path in UTF-8: "${replacementCharacter}" stands for bytes that are none, and the volume would be somewhere else`,
    );
  }
}

/** What Node.js makes of bytes in an argument that are no UTF-8. */
const replacementCharacter = "\ufffd";

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are looked for
const hasControlCharacter = /[\u0000-\u001f\u007f]/;

/**
 * A path for a volume whose caller names none, or who is not root.
 * @throws RpcError where the folder around it is not this process's alone
 */
async function makePlace(runFolder: string): Promise<string> {
  await makeRunFolder(runFolder).catch((error: unknown) => {
    throw failedPrecondition(error instanceof Error ? error.message : String(error));
  });
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
const publishRequestOf = (
  request: MountRequest,
  targetPath: string,
  mountFlags: string[] = request.readOnly ? [readOnlyFlag] : [],
): PublishRequest => ({
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
      mountFlags,
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
  targetPath: volume.shownAt ?? volume.request.targetPath,
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
