/** What users who are not root may have of volumes: a socket each, and a share of what there is. */
import { rmdir } from "node:fs/promises";
import { userSocketIn, usersFolderIn } from "../config/volume-commands.ts";
import { showRef } from "../connector/connector-ref.ts";
import type { FindConnector } from "../connector/platform.ts";
import { parseVolumeAttributes } from "../connector/volume-attributes.ts";
import type { MountRequest__Output as MountRequest } from "../csi/generated/ociconnector/v1/MountRequest.ts";
import type { VolumesHandlers } from "../csi/generated/ociconnector/v1/Volumes.ts";
import { volumes } from "../csi/proto.ts";
import { serveOnSocket } from "../csi/socket-server.ts";
import { createUnary, type Unary } from "../csi/unary.ts";
import { unless } from "../error-code.ts";
import type { Log } from "../log.ts";
import { type Caller, refuseConnectors } from "../standalone/caller.ts";
import { makeRunFolder } from "./run-folder.ts";

/** How many volumes a user can have at a time, and for how many seconds, unless a volume ends with a process. */
const userBounds = { volumes: 32, lifetimeSeconds: 24 * 60 * 60 };

/**
 * Why a user who is not root may not have the volume that they ask for, as a sentence; undefined where they may. Which
 * connectors there are is told to those alone who may name them.
 * @param count of the volumes that the user has
 */
export type WhyNotForUser = (
  caller: Caller,
  request: MountRequest,
  count: number,
) => Promise<string | undefined>;

/** What a request of a user is looked at with. */
export interface UserRequestOptions {
  readonly allows: (caller: Caller, connectors: readonly string[]) => boolean;
  readonly findConnector: FindConnector;
  /** The number of the user who has started a process; undefined where none with that number runs. */
  readonly processUser: (pid: number) => Promise<number | undefined>;
}

/** Creates what looks at requests of users. */
export function createUserRequestCheck(options: UserRequestOptions): WhyNotForUser {
  return async (caller, request, count) => {
    const refused = refusedOptionOf(request);
    if (refused !== undefined) return refused;
    if (count >= userBounds.volumes) {
      return `user ${caller.uid} has ${count} volumes, which is as many as a user can have: unmount one ("oci-connector volumes" lists them)`;
    }
    const { process } = request;
    if (process !== null && (await options.processUser(process.pid)) !== caller.uid) {
      return `--pid: process ${process.pid} is none of user ${caller.uid}: name a process of your own`;
    }
    return whyNoConnectors(options, caller, request);
  };
}

async function whyNoConnectors(
  { allows, findConnector }: UserRequestOptions,
  caller: Caller,
  request: MountRequest,
): Promise<string | undefined> {
  const attributes = parseVolumeAttributes(request.attributes, request.namespace);
  if (!attributes.ok) return undefined; // whoever mounts says what is wrong
  const refs = attributes.value.connectors;
  const names = refs.map(showRef);
  const isAllowed = allows(caller, names);
  const found = isAllowed ? await Promise.all(refs.map(findConnector)) : [];
  const isThere = found.every(({ state }) => state !== "missing");
  if (isAllowed && isThere) return undefined;
  return refuseConnectors(caller, names).reason;
}

/** What root alone may ask for. */
function refusedOptionOf(request: MountRequest): string | undefined {
  const { persistent, force, group, attributes, lifetimeSeconds, process } = request;
  if (persistent) return "--persistent is for root alone: leave it out";
  if (force) return "--force is for root alone: name an empty folder";
  if (group !== "") {
    return "--group is for root alone: a volume of a user can be read by that user only; leave it out";
  }
  const kubelets = Object.keys(attributes).find((key) => key.startsWith("csi.storage.k8s.io/"));
  if (kubelets !== undefined) return `attribute ${kubelets}: found a value, wanted none`;
  const isBounded = lifetimeSeconds > 0 && lifetimeSeconds <= userBounds.lifetimeSeconds;
  if (process === null && !isBounded) {
    return "--for: a volume of a user lives for 24h at most, unless it ends with a process: name a shorter time, or add --pid, or use run";
  }
  return undefined;
}

/** What serves users. */
export interface UserSocketsOptions {
  readonly uids: readonly number[];
  readonly runFolder: string;
  /** Creates the service of a user. */
  readonly serviceFor: (
    caller: Caller,
    unary: Unary,
  ) => Pick<VolumesHandlers, "Mount" | "Unmount" | "List">;
  readonly graceMs: number;
  readonly log: Log;
}

/**
 * Serves each user on a socket of their own, which the kernel lets that user alone connect to, and root: so the socket
 * says who asks. The folder around the sockets is root's, so nobody can put another one in its place.
 * @returns what ends that
 * @throws Error where a socket can't be placed
 */
export async function serveUsers(options: UserSocketsOptions): Promise<() => Promise<void>> {
  const { runFolder, log } = options;
  const folder = usersFolderIn(runFolder);
  const servers: { stop(): Promise<void> }[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(servers.map((server) => server.stop()));
    await rmdir(folder).catch(unless(undefined, "ENOENT", "ENOTEMPTY"));
  };
  if (options.uids.length === 0) return stop;
  try {
    await makeRunFolder(runFolder);
    await makeRunFolder(folder);
    const unary = createUnary(log);
    for (const uid of options.uids) {
      const service = options.serviceFor({ uid }, unary);
      const server = await serveOnSocket({
        socketPath: userSocketIn(runFolder, uid),
        uid,
        graceMs: options.graceMs,
        log,
        addServices: (grpc) => grpc.addService(volumes.Volumes.service, service),
      });
      servers.push(server);
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return stop;
}
