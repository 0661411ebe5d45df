import { showRef } from "../connector/connector-ref.ts";
import type { Result } from "../connector/platform.ts";
import { describeProblems } from "../connector/problem.ts";
import { parseVolumeAttributes } from "../connector/volume-attributes.ts";
import { namespaceIfAbsent } from "./folder-documents.ts";
import type { SignToken } from "./tokens.ts";
import { isVolumeId, type RecordedRequest, type VolumeRecord } from "./volume-records.ts";

/** What a volume's token has to be like. */
export interface TokenSpec {
  /** The connectors that the token opens, as `namespace/name`. */
  readonly connectors: readonly string[];
  readonly lifetimeSeconds: number;
}

/** The token that a request needs, by the same attributes as in the csi room, or everything that is wrong with the request. */
function tokenSpecOf(
  { volumeId, volumeContext }: RecordedRequest,
  lifetimeSecondsIfAbsent: number,
): Result<TokenSpec> {
  if (!isVolumeId(volumeId)) {
    return { ok: false, reason: "volume_id: wanted 1 to 128 letters, digits and . _ -" };
  }
  const namespace = volumeContext["csi.storage.k8s.io/pod.namespace"] || namespaceIfAbsent;
  const attributes = parseVolumeAttributes(volumeContext, namespace);
  if (!attributes.ok) return { ok: false, reason: describeProblems(attributes.problems) };
  const { connectors, tokenLifetimeSeconds = lifetimeSecondsIfAbsent } = attributes.value;
  return {
    ok: true,
    value: { connectors: connectors.map(showRef), lifetimeSeconds: tokenLifetimeSeconds },
  };
}

/** What tokens are given to volumes with. */
export interface VolumeTokenOptions {
  readonly signToken: SignToken;
  /** The audience under which the csi room looks for the token. */
  readonly audience: string;
  /**
   * The lifetime of tokens of volumes without a `token.expiration`. A token is renewed when a quarter of its lifetime
   * has passed, so a tool that reads its token only once (buildctl) has three quarters at least.
   * Hours are safe: an unmount revokes a token long before, and it opens this proxy alone.
   */
  readonly tokenLifetimeSeconds: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** Gives volumes their tokens. */
export interface VolumeTokens {
  /** The token that a request needs, or everything that is wrong with the request. */
  specOf(request: RecordedRequest): Result<TokenSpec>;
  /** The connectors of a recorded request, as `namespace/name`: none where it is none that could be mounted. */
  connectorsOf(request: RecordedRequest): readonly string[];
  /**
   * When a token that is signed now is due for renewal, in milliseconds since 1970. It is asked before a publish, which
   * may take its time.
   * @throws Error where the recorded request is none that could be mounted
   */
  dueAt(volume: VolumeRecord<RecordedRequest>): number;
  /**
   * The request of a volume with a fresh token in its secrets, where the kubelet puts it.
   * @throws Error where the recorded request is none that could be mounted
   */
  withToken<Request extends RecordedRequest>(volume: VolumeRecord<Request>): Promise<Request>;
}

const tokensKey = "csi.storage.k8s.io/serviceAccount.tokens";

/** Creates what gives volumes their tokens. */
export function createVolumeTokens(options: VolumeTokenOptions): VolumeTokens {
  const { now } = options;
  const specOf = (request: RecordedRequest): Result<TokenSpec> =>
    tokenSpecOf(request, options.tokenLifetimeSeconds);
  const recordedSpec = ({ request }: VolumeRecord<RecordedRequest>): TokenSpec => {
    const spec = specOf(request);
    if (spec.ok) return spec.value;
    throw new Error(`the recorded volume can't be mounted any more: ${spec.reason}`);
  };
  return {
    specOf,
    connectorsOf(request) {
      const spec = specOf(request);
      return spec.ok ? spec.value.connectors : [];
    },
    dueAt: (volume) => now() + (recordedSpec(volume).lifetimeSeconds * 1000) / 4,
    async withToken(volume) {
      const { mount, request } = volume;
      const { connectors, lifetimeSeconds } = recordedSpec(volume);
      const holder = { volumeId: request.volumeId, mount, connectors };
      const { token, expiresAt } = await options.signToken(holder, lifetimeSeconds);
      const entry = { token, expirationTimestamp: expiresAt.toISOString() };
      return {
        ...request,
        secrets: { [tokensKey]: JSON.stringify({ [options.audience]: entry }) },
      };
    },
  };
}
