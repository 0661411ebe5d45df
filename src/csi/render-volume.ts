import { showRef } from "../connector/connector-ref.ts";
import { describeProblems } from "../connector/problem.ts";
import { renderVolumeFiles, type VolumeFiles } from "../connector/volume-files.ts";
import type { NodePublishVolumeRequest__Output as PublishRequest } from "./generated/csi/v1/NodePublishVolumeRequest.ts";
import { formatRecord, recordName } from "./publish-record.ts";
import { invalidArgument, type RpcError } from "./rpc-error.ts";
import { type ConnectorLookups, findVolumeConnectors } from "./volume-connectors.ts";
import type { FileAccess } from "./volume-mounts.ts";
import { parseVolumeRequest, readServiceAccountToken } from "./volume-request.ts";

/** What a volume is rendered from, beside the request to publish it. */
export interface RenderOptions extends ConnectorLookups {
  /** The audience of the Pods' tokens. */
  readonly audience: string;
  /** The certificates of the proxy's authority, PEM. */
  readonly caCertificate: () => string;
  /** The certificates that tools trust by default, PEM. */
  readonly rootCertificates: () => string;
  /** Hosts that tools connect to directly, past the proxy: the entries of `no_proxy`. */
  readonly noProxy: readonly string[];
  /** Whether tools see the volume at its target path, so that its files can name each other. */
  readonly toolsSeeTargetPath: boolean;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** A volume's files and mount, computed before anything is mounted or written. */
export interface RenderedVolume {
  /** The files that the Pod sees, and the record. */
  readonly files: VolumeFiles;
  readonly access: FileAccess;
  readonly mountOptions: readonly string[];
  readonly isReadOnly: boolean;
  /** Reasons not to publish this volume. A published volume is refreshed in spite of them. */
  readonly objections: readonly RpcError[];
  /** The volume's connectors for a log line: `team-a/harbor,team-b/ghcr`. */
  readonly connectors: string;
}

/**
 * Computes a volume from the request to publish it.
 * @throws RpcError where the request is invalid, or has no valid token
 * @throws Unavailable where connectors can't be looked up now
 */
export async function renderVolume(
  options: RenderOptions,
  request: PublishRequest,
): Promise<RenderedVolume> {
  const volume = parseVolumeRequest(request);
  const { token, expiresAt } = readServiceAccountToken(request, options.audience, options.now());
  const { connectors, objections } = await findVolumeConnectors(options, volume);
  const refs = connectors.map(({ ref }) => ref);
  const files = renderVolumeFiles(
    volume.attributes,
    {
      connectors,
      token,
      noProxy: options.noProxy,
      caCertificate: options.caCertificate(),
      rootCertificates: options.rootCertificates(),
    },
    options.toolsSeeTargetPath ? { mountPath: request.targetPath } : {},
  );
  if (!files.ok) throw invalidArgument(describeProblems(files.problems));
  const record = formatRecord({
    volumeId: request.volumeId,
    connectors: refs,
    tokenExpiresAt: expiresAt,
  });
  return {
    files: new Map([...files.value, [recordName, record]]),
    access: volume.access,
    mountOptions: volume.mountOptions,
    isReadOnly: volume.isReadOnly,
    objections,
    connectors: refs.map(showRef).join(","),
  };
}
