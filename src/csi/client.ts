import { once } from "node:events";
import { connect } from "node:net";
import { credentials, type ServiceError } from "@grpc/grpc-js";
import { errorCode } from "../error-code.ts";
import type { NodeClient } from "./generated/csi/v1/Node.ts";
import { csi } from "./proto.ts";

/** The volume to publish, as the kubelet names it. */
export interface PublishOptions {
  readonly volumeId: string;
  readonly targetPath: string;
  /** The namespace of connectors that the attributes name without one. */
  readonly namespace: string;
  /** The `volumeAttributes` of a Pod's inline volume. */
  readonly attributes: Readonly<Record<string, string>>;
  /** The number of the group that may read the volume; every user may read it where this is undefined. */
  readonly mountGroup?: string;
}

/** The kubelet waits as long for a call. */
const callTimeoutMs = 120_000;

/**
 * Publishes a volume as the kubelet does.
 * @param socketPath the driver's CSI socket
 * @throws Error with the driver's message, or with what to do where no driver listens
 */
export function publishVolume(socketPath: string, options: PublishOptions): Promise<void> {
  const { volumeId, targetPath, namespace, attributes, mountGroup } = options;
  const request = {
    volumeId,
    targetPath,
    readonly: true,
    volumeCapability: {
      mount: mountGroup === undefined ? {} : { volumeMountGroup: mountGroup },
      accessMode: { mode: "SINGLE_NODE_WRITER" as const },
    },
    volumeContext: {
      ...attributes,
      "csi.storage.k8s.io/ephemeral": "true",
      "csi.storage.k8s.io/pod.namespace": namespace,
    },
  };
  return call(socketPath, (client, deadline, done) =>
    client.nodePublishVolume(request, { deadline }, done),
  );
}

/**
 * Unpublishes a volume as the kubelet does.
 * @param socketPath the driver's CSI socket
 * @throws Error with the driver's message, or with what to do where no driver listens
 */
export function unpublishVolume(
  socketPath: string,
  request: { readonly volumeId: string; readonly targetPath: string },
): Promise<void> {
  return call(socketPath, (client, deadline, done) =>
    client.nodeUnpublishVolume(request, { deadline }, done),
  );
}

async function call(
  socketPath: string,
  start: (
    client: NodeClient,
    deadline: Date,
    done: (error: ServiceError | null) => void,
  ) => unknown,
): Promise<void> {
  await checkListener(socketPath);
  const client = new csi.Node(`unix:${socketPath}`, credentials.createInsecure());
  try {
    await new Promise<void>((resolve, reject) => {
      start(client, new Date(Date.now() + callTimeoutMs), (error) =>
        error === null ? resolve() : reject(new Error(inWordsOfTheCommandLine(error.details))),
      );
    });
  } finally {
    client.close();
  }
}

/** What a driver calls the target and its own log, in the words of whoever has typed the command. */
const inWordsOfTheCommandLine = (message: string): string =>
  message
    .replace(/(^|; )target_path\b/g, "$1TARGET")
    .replace(/(^|; )configuration\.names\b/g, "$1--configuration")
    .replace("internal error; see the driver's log", "the process failed; its log has the cause")
    .replace("see the driver's log", "the log of the process has the cause");

/** Connects once beforehand: grpc-js retries where nobody listens, and its last error does not say why. */
async function checkListener(socketPath: string): Promise<void> {
  const socket = connect(socketPath);
  try {
    await once(socket, "connect");
  } catch (error) {
    const code = String(errorCode(error));
    const advice =
      code === "EACCES"
        ? "run this command as the user who started `oci-connector standalone`"
        : "is `oci-connector standalone` running?";
    throw new Error(`can't connect to ${socketPath} (${code}): ${advice}`);
  } finally {
    socket.destroy();
  }
}
