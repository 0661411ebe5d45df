import { property } from "../connector/document.ts";
import type { NodePublishVolumeRequest__Output as PublishRequest } from "./generated/csi/v1/NodePublishVolumeRequest.ts";
import { type RpcError, unavailable } from "./rpc-error.ts";

/** What the Pod shows to the proxy. */
export interface ServiceAccountToken {
  readonly token: string;
  readonly expiresAt: Date;
}

const key = "csi.storage.k8s.io/serviceAccount.tokens";

/**
 * The Pod's token for the audience, as the kubelet gives it: in the secrets since Kubernetes 1.35
 * (KEP-5538), in the volume's context before.
 * @throws RpcError that asks for another attempt, where there is none that is still valid
 */
export function readServiceAccountToken(
  request: Pick<PublishRequest, "secrets" | "volumeContext">,
  audience: string,
  now: Date,
): ServiceAccountToken {
  const text = property(request.secrets, key) ?? property(request.volumeContext, key);
  const entry = property(parseJson(text), audience);
  const token = property(entry, "token");
  const expiresAt = new Date(String(property(entry, "expirationTimestamp")));
  if (typeof token !== "string" || token === "" || Number.isNaN(expiresAt.getTime())) {
    throw missing(audience);
  }
  if (expiresAt <= now) throw expired(audience, expiresAt);
  return { token, expiresAt };
}

/** An error of JSON.parse quotes its input, and so a token. */
function parseJson(text: unknown): unknown {
  try {
    return JSON.parse(String(text));
  } catch {
    return undefined;
  }
}

const missing = (audience: string): RpcError =>
  unavailable(
    `the kubelet gave no token for the audience "${audience}": set tokenRequests: [{audience: "${audience}"}] and requiresRepublish: true in the spec of this driver's CSIDriver`,
  );

const expired = (audience: string, at: Date): RpcError =>
  unavailable(
    `the token that the kubelet gave for the audience "${audience}" expired at ${at.toISOString()}: check the node's clock and the kubelet's connection to the API server`,
  );
