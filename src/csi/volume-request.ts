import { property } from "../connector/document.ts";
import { describeProblems, type Problem, show } from "../connector/problem.ts";
import { serviceAccountRequester } from "../connector/service-account.ts";
import type { Requester } from "../connector/surroundings.ts";
import { parseVolumeAttributes, type VolumeAttributes } from "../connector/volume-attributes.ts";
import type { NodePublishVolumeRequest__Output as PublishRequest } from "./generated/csi/v1/NodePublishVolumeRequest.ts";
import { invalidArgument } from "./rpc-error.ts";
import { type Access, accessFor } from "./volume-mounts.ts";

/** What a Pod wants, as the kubelet tells it. */
export interface VolumeRequest {
  readonly namespace: string;
  /** Who is going to use the connectors. */
  readonly requester: Requester;
  readonly attributes: VolumeAttributes;
  readonly access: Access;
  /** SELinux contexts, as options of the mount. */
  readonly mountOptions: readonly string[];
}

/** @throws RpcError with everything that is wrong, since it is read in the Pod's events */
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
  demand(
    mount != null,
    "volume_capability",
    request.volumeCapability?.accessType,
    "mount: a block device can't hold files",
  );
  const fsType = mount?.fsType ?? "";
  demand(fsType === "" || fsType === "tmpfs", "csi.fsType", fsType, '"tmpfs" or nothing');
  const mountFlags = mount?.mountFlags ?? [];
  const mountOptions = mountFlags.flatMap((flag) => seLinuxOption(flag) ?? []);
  demand(
    mountOptions.length === mountFlags.length,
    "mount_flags",
    mountFlags,
    "SELinux contexts only, such as context=system_u:object_r:container_file_t:s0",
  );
  const group = mount?.volumeMountGroup ?? "";
  demand(isGroup(group), "securityContext.fsGroup", group, "the number of a group");
  if (!attributes.ok || problems.length > 0) throw invalidArgument(describeProblems(problems));
  return {
    namespace,
    requester: requesterOf(namespace, podInfo("serviceAccount.name")),
    attributes: attributes.value,
    access: accessFor(group === "" ? undefined : Number(group)),
    mountOptions,
  };
}

/** The Pod as a log line names it: `team-a/build-1`. */
export const podOf = (request: PublishRequest): string =>
  `${podInfoOf(request, "pod.namespace")}/${podInfoOf(request, "pod.name")}`;

/** What the kubelet adds to a volume's context where the CSIDriver says podInfoOnMount. */
function podInfoOf(request: PublishRequest, key: string): string {
  const value = property(request.volumeContext, `csi.storage.k8s.io/${key}`);
  return typeof value === "string" ? value : "";
}

const requesterOf = (namespace: string, name: string): Requester =>
  name === "" ? { user: "", groups: [] } : serviceAccountRequester({ namespace, name });

/** A context may hold commas (`s0:c1,c2`), so it goes between quotes, as the kubelet writes it. */
function seLinuxOption(flag: string): string | undefined {
  const match = /^((?:fs|def|root)?context)=("?)([\w.:,-]+)\2$/.exec(flag);
  return match === null ? undefined : `${match[1]}="${match[3]}"`;
}

/** 2³² - 1 stands for "no group" in chown(2). */
const isGroup = (text: string): boolean =>
  text === "" || (/^\d{1,10}$/.test(text) && Number(text) < 2 ** 32 - 1);
