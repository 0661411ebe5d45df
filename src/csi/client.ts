import { once } from "node:events";
import { connect } from "node:net";
import { credentials, type ServiceError } from "@grpc/grpc-js";
import { errorCode } from "../error-code.ts";
import type { NodeClient } from "./generated/csi/v1/Node.ts";
import { csi } from "./proto.ts";

export interface PublishOptions {
  readonly volumeId: string;
  readonly targetPath: string;
  /** Where connectors are that are named without a namespace. */
  readonly namespace: string;
  readonly attributes: Readonly<Record<string, string>>;
  /** The number of the group that may read the volume; without it everybody may. */
  readonly mountGroup?: string;
}

/** As long as the kubelet waits. */
const callTimeoutMs = 120_000;

/**
 * Publishes a volume as the kubelet does.
 * @throws Error whose message is the driver's, or says that there is no driver
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
 * Takes a volume away as the kubelet does.
 * @throws Error, as {@link publishVolume}
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
        error === null ? resolve() : reject(new Error(error.details)),
      );
    });
  } finally {
    client.close();
  }
}

/** grpc-js goes on trying where nobody listens, and says little in the end. */
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
