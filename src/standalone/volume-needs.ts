import { showRef } from "../connector/connector-ref.ts";
import { describeProblems } from "../connector/problem.ts";
import type { Answer } from "../connector/surroundings.ts";
import { parseVolumeAttributes } from "../connector/volume-attributes.ts";
import { namespaceIfAbsent } from "./folder-documents.ts";
import { isVolumeId, type VolumeRequest } from "./volume-record.ts";

/** What a volume's token has to be. */
export interface VolumeNeeds {
  /** What it opens, as `namespace/name`. */
  readonly connectors: readonly string[];
  /** Seconds. */
  readonly tokenLifetime: number;
}

/** Reads them from a request as the csi role does, or says all that is wrong with it. */
export function volumeNeeds(
  { volumeId, volumeContext }: VolumeRequest,
  tokenLifetimeIfAbsent: number,
): Answer<VolumeNeeds> {
  if (!isVolumeId(volumeId)) {
    return { ok: false, reason: "volume_id: wanted 1 to 128 letters, digits and . _ -" };
  }
  const namespace = volumeContext["csi.storage.k8s.io/pod.namespace"] || namespaceIfAbsent;
  const attributes = parseVolumeAttributes(volumeContext, namespace);
  if (!attributes.ok) return { ok: false, reason: describeProblems(attributes.problems) };
  const { connectors, tokenLifetime = tokenLifetimeIfAbsent } = attributes.value;
  return { ok: true, value: { connectors: connectors.map(showRef), tokenLifetime } };
}
