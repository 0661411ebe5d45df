import { isMountPath } from "../connector/configuration-params.ts";
import { showRef } from "../connector/connector-ref.ts";
import { describeProblems } from "../connector/problem.ts";
import { renderVolumeFiles, type VolumeFiles } from "../connector/volume-files.ts";
import type { NodePublishVolumeRequest__Output as PublishRequest } from "./generated/csi/v1/NodePublishVolumeRequest.ts";
import { formatRecord, recordName } from "./publish-record.ts";
import { invalidArgument, type RpcError } from "./rpc-error.ts";
import { type ConnectorLookups, findVolumeConnectors } from "./volume-connectors.ts";
import type { FileAccess } from "./volume-mounts.ts";
import { parseVolumeRequest, readServiceAccountToken } from "./volume-request.ts";

export interface RenderOptions extends ConnectorLookups {
  /** Whom a Pod's token is for. */
  readonly audience: string;
  /** The certificates of the proxy's authority, PEM. */
  readonly caCertificate: () => string;
  /** Those that tools trust by themselves, PEM. */
  readonly rootCertificates: () => string;
  /** Hosts that tools ask directly, beside the proxy. */
  readonly noProxy: readonly string[];
  /** Whether tools see the volume at its target path, so that its files can name each other. */
  readonly toolsSeeTargetPath: boolean;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** All that a volume is to be, worked out before anything is mounted or written. */
export interface RenderedVolume {
  /** What the Pod sees, and the record. */
  readonly files: VolumeFiles;
  readonly access: FileAccess;
  readonly mountOptions: readonly string[];
  /** Reasons not to publish this volume, and none to leave a published one without a fresh token. */
  readonly objections: readonly RpcError[];
  /** `team-a/harbor,team-b/ghcr` */
  readonly connectors: string;
}

/** @throws RpcError, Unavailable */
export async function renderVolume(
  options: RenderOptions,
  request: PublishRequest,
): Promise<RenderedVolume> {
  const wanted = parseVolumeRequest(request);
  const { token, expiresAt } = readServiceAccountToken(request, options.audience, options.now());
  const { connectors, objections } = await findVolumeConnectors(options, wanted);
  const refs = connectors.map(({ ref }) => ref);
  const files = renderVolumeFiles(
    wanted.attributes,
    {
      connectors,
      token,
      noProxy: options.noProxy,
      caCertificate: options.caCertificate(),
      rootCertificates: options.rootCertificates(),
    },
    options.toolsSeeTargetPath && isMountPath(request.targetPath)
      ? { mountPath: request.targetPath }
      : {},
  );
  if (!files.ok) throw invalidArgument(describeProblems(files.problems));
  const record = formatRecord({
    volumeId: request.volumeId,
    connectors: refs,
    tokenExpiresAt: expiresAt,
  });
  return {
    files: new Map([...files.value, [recordName, record]]),
    access: wanted.access,
    mountOptions: wanted.mountOptions,
    objections,
    connectors: refs.map(showRef).join(","),
  };
}
