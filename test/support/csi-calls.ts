/** Calls of CSI on a driver's socket, as the kubelet makes them. */
import { csi } from "../../src/csi/proto.ts";
import { callOnSocket } from "../../src/csi/socket-client.ts";

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

/**
 * Publishes a volume as the kubelet does.
 * @param socketPath the driver's CSI socket
 * @throws Error with the driver's message, or with what to do where no driver listens
 */
export async function publishVolume(socketPath: string, options: PublishOptions): Promise<void> {
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
  await callOnSocket(csi.Node, socketPath, (client, deadline, done) =>
    client.nodePublishVolume(request, { deadline }, done),
  );
}

/**
 * Unpublishes a volume as the kubelet does.
 * @param socketPath the driver's CSI socket
 * @throws Error with the driver's message, or with what to do where no driver listens
 */
export async function unpublishVolume(
  socketPath: string,
  request: { readonly volumeId: string; readonly targetPath: string },
): Promise<void> {
  await callOnSocket(csi.Node, socketPath, (client, deadline, done) =>
    client.nodeUnpublishVolume(request, { deadline }, done),
  );
}
