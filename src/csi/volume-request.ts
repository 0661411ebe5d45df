import { isAccountNumber } from "../connector/account-number.ts";
import { parseJson, property } from "../connector/document.ts";
import { type Requester, serviceAccountRequester } from "../connector/platform.ts";
import { describeProblems, type Problem, show } from "../connector/problem.ts";
import { parseVolumeAttributes, type VolumeAttributes } from "../connector/volume-attributes.ts";
import type { NodePublishVolumeRequest__Output as PublishRequest } from "./generated/csi/v1/NodePublishVolumeRequest.ts";
import { invalidArgument, type RpcError, unavailable } from "./rpc-error.ts";
import { type FileAccess, fileAccessFor, fileAccessOfUser } from "./volume-mounts.ts";

/** A checked request to publish a volume. */
export interface VolumeRequest {
  /** The Pod's own namespace. */
  readonly namespace: string;
  /** The Pod's ServiceAccount, which is going to use the connectors. */
  readonly requester: Requester;
  readonly attributes: VolumeAttributes;
  readonly access: FileAccess;
  /** Further options of the mount: SELinux contexts. */
  readonly mountOptions: readonly string[];
  /** Whether the mount is read-only for root, too. In a cluster the kubelet shows it to containers read-only anyway. */
  readonly isReadOnly: boolean;
}

/**
 * Checks a request to publish a volume.
 * @throws RpcError with everything that is wrong, since people read it in the Pod's events
 */
export function parseVolumeRequest(request: PublishRequest): VolumeRequest {
  const podInfo = (key: string): string => podInfoOf(request, key);
  const namespace = podInfo("pod.namespace");
  const mount = request.volumeCapability?.mount;
  const attributes = parseVolumeAttributes(request.volumeContext, namespace || "default");
  const problems: Problem[] = [...(attributes.ok ? [] : attributes.problems)];
  const demand = (isRight: boolean, path: string, found: unknown, wanted: string): void => {
    if (!isRight) problems.push({ path, found: show(found), wanted });
  };
  demand(request.readonly, "csi.readOnly", request.readonly, "true in the Pod's volume");
  demand(
    podInfo("ephemeral") === "true",
    "csi.storage.k8s.io/ephemeral",
    podInfo("ephemeral"),
    '"true": an inline volume (csi: in the Pod\'s spec) and podInfoOnMount: true in the CSIDriver',
  );
  demand(
    namespace !== "",
    "csi.storage.k8s.io/pod.namespace",
    namespace,
    "the Pod's namespace: set podInfoOnMount: true in the CSIDriver",
  );
  const fsType = mount?.fsType ?? "";
  demand(fsType === "" || fsType === "tmpfs", "csi.fsType", fsType, '"tmpfs" or nothing');
  const flags = mount?.mountFlags ?? [];
  const isReadOnly = flags.includes(readOnlyFlag);
  const [owner, ...otherOwners] = flags.flatMap((flag) => ownerIn(flag) ?? []);
  const mountFlags = flags.filter((flag) => flag !== readOnlyFlag && ownerIn(flag) === undefined);
  const mountOptions = mountFlags.flatMap((flag) => seLinuxOption(flag) ?? []);
  demand(
    mountOptions.length === mountFlags.length,
    "mount_flags",
    mountFlags,
    `${readOnlyFlag} and SELinux contexts only, such as context=system_u:object_r:container_file_t:s0`,
  );
  const group = mount?.volumeMountGroup ?? "";
  const isOwned = isReadOnly && group === "" && otherOwners.length === 0;
  demand(
    owner === undefined || isOwned,
    "mount_flags",
    flags,
    `one owner, with ${readOnlyFlag} and without a group`,
  );
  const isGroup = group === "" || isAccountNumber(group);
  demand(isGroup, "securityContext.fsGroup", group, "the number of a group");
  if (!attributes.ok || problems.length > 0) throw invalidArgument(describeProblems(problems));
  return {
    namespace,
    requester: requesterOf(namespace, podInfo("serviceAccount.name")),
    attributes: attributes.value,
    access: owner === undefined ? fileAccessFor(groupIn(group)) : fileAccessOfUser(owner),
    mountOptions,
    isReadOnly,
  };
}

/** The mount flag of a request that makes the mount read-only for root, too. */
export const readOnlyFlag = "ro";

const groupIn = (text: string): number | undefined => (text === "" ? undefined : Number(text));

/** The mount flag of a request whose files belong to one user, and are for nobody else. They are read-only for that user. */
export const ownerFlag = (uid: number): string => `uid=${uid}`;

const ownerIn = (flag: string): number | undefined => {
  const uid = /^uid=([1-9]\d{0,9})$/.exec(flag)?.[1];
  return uid !== undefined && isAccountNumber(uid) ? Number(uid) : undefined;
};

/** The Pod's namespace and name for a log line: `team-a/build-1`; undefined where the request names no Pod. */
export function podOf(request: PublishRequest): string | undefined {
  const name = podInfoOf(request, "pod.name");
  return name === "" ? undefined : `${podInfoOf(request, "pod.namespace")}/${name}`;
}

/** A value that the kubelet adds to the volume's context where the CSIDriver has podInfoOnMount; empty where it is missing. */
function podInfoOf(request: PublishRequest, key: string): string {
  const value = property(request.volumeContext, `csi.storage.k8s.io/${key}`);
  return typeof value === "string" ? value : "";
}

const requesterOf = (namespace: string, name: string): Requester =>
  name === "" ? { user: "", groups: [] } : serviceAccountRequester({ namespace, name });

/** An SELinux option of the mount. A context may hold commas (`s0:c1,c2`), so it goes between quotes, as the kubelet writes it. */
function seLinuxOption(flag: string): string | undefined {
  const match = /^((?:fs|def|root)?context)=("?)([\w.:,-]+)\2$/.exec(flag);
  return match === null ? undefined : `${match[1]}="${match[3]}"`;
}

/** The Pod's token, which tools present to the proxy. */
export interface ServiceAccountToken {
  readonly token: string;
  readonly expiresAt: Date;
}

const tokensKey = "csi.storage.k8s.io/serviceAccount.tokens";

/**
 * Reads the Pod's token from a request to publish a volume: from the secrets since Kubernetes 1.35 (KEP-5538), from
 * the volume's context before.
 * @param now milliseconds since 1970
 * @throws RpcError with UNAVAILABLE where there is no valid token for the audience
 */
export function readServiceAccountToken(
  request: Pick<PublishRequest, "secrets" | "volumeContext">,
  audience: string,
  now: number,
): ServiceAccountToken {
  const text = property(request.secrets, tokensKey) ?? property(request.volumeContext, tokensKey);
  const entry = property(parseJson(typeof text === "string" ? text : undefined), audience);
  const token = property(entry, "token");
  const expiresAt = new Date(String(property(entry, "expirationTimestamp")));
  if (typeof token !== "string" || token === "" || Number.isNaN(expiresAt.getTime())) {
    throw missingToken(audience);
  }
  if (expiresAt.getTime() <= now) throw expiredToken(audience, expiresAt);
  return { token, expiresAt };
}

const missingToken = (audience: string): RpcError =>
  unavailable(
    `the kubelet gave no token for the audience "${audience}": set tokenRequests: [{audience: "${audience}"}] and requiresRepublish: true in the spec of this driver's CSIDriver`,
  );

const expiredToken = (audience: string, at: Date): RpcError =>
  unavailable(
    `the token that the kubelet gave for the audience "${audience}" expired at ${at.toISOString()}: check the node's clock and the kubelet's connection to the API server`,
  );
