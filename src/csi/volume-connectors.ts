import { status } from "@grpc/grpc-js";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { type FindConnector, type MayUse, Unavailable } from "../connector/platform.ts";
import type { ProxyHostsOf } from "../connector/proxy-address.ts";
import type { VolumeConnector } from "../connector/volume-contents.ts";
import { RpcError, unavailable } from "./rpc-error.ts";
import type { VolumeRequest } from "./volume-request.ts";

/** What is asked about each connector of a volume. */
export interface ConnectorLookups {
  readonly findConnector: FindConnector;
  readonly mayUse: MayUse;
  readonly proxyHostsOf: ProxyHostsOf;
}

/** The connectors of a volume, in its order, and what is wrong with them. */
export interface VolumeConnectors {
  readonly connectors: readonly [VolumeConnector, ...VolumeConnector[]];
  /** Reasons not to publish the volume. A published volume is refreshed in spite of them. */
  readonly objections: readonly RpcError[];
}

/**
 * Looks up the connectors of a volume, all at once.
 * @throws Unavailable where connectors can't be looked up now
 */
export async function findVolumeConnectors(
  lookups: ConnectorLookups,
  request: VolumeRequest,
): Promise<VolumeConnectors> {
  const [first, ...others] = request.attributes.connectors;
  const find = (ref: ConnectorRef) => findVolumeConnector(lookups, request, ref);
  const found = await Promise.all([find(first), ...others.map(find)]);
  const [firstFound, ...othersFound] = found;
  return {
    connectors: [firstFound.connector, ...othersFound.map(({ connector }) => connector)],
    objections: found.flatMap(({ objection }) => objection ?? []),
  };
}

async function findVolumeConnector(
  { findConnector, mayUse, proxyHostsOf }: ConnectorLookups,
  { namespace, requester }: VolumeRequest,
  ref: ConnectorRef,
): Promise<{ readonly connector: VolumeConnector; readonly objection: RpcError | undefined }> {
  const [found, refusal] = await Promise.all([
    findConnector(ref),
    mayUse(requester, ref, "pull").then(
      (allowed) => (allowed.ok ? undefined : refused(ref, allowed.reason)),
      undecided,
    ),
  ]);
  const absence =
    found.state === "missing"
      ? new RpcError(status.NOT_FOUND, describeUnusable(ref, found.reason, found.state))
      : undefined;
  // Only those who may use them learn which connectors another namespace has.
  const objection = ref.namespace === namespace ? (absence ?? refusal) : (refusal ?? absence);
  const imageHost = found.state === "found" ? found.connector.address.imageHost : undefined;
  return { connector: { ref, proxy: proxyHostsOf(ref), imageHost }, objection };
}

const refused = (ref: ConnectorRef, reason: string): RpcError =>
  new RpcError(status.PERMISSION_DENIED, `connector "${showRef(ref)}": ${reason}`);

/** An access review that fails becomes an objection, since a renewed token has to reach a volume all the same. */
function undecided(error: unknown): RpcError {
  if (error instanceof Unavailable) return unavailable(error.message);
  throw error;
}

/**
 * Finds the connectors that are missing or invalid.
 * @returns one sentence for each; none for a connector that can't be looked up now
 */
export async function findUnusable(
  findConnector: FindConnector,
  refs: readonly ConnectorRef[],
): Promise<readonly string[]> {
  const sentences = refs.map(async (ref) => {
    const found = await findConnector(ref).catch(unlessUnavailable);
    if (found === undefined || found.state === "found") return [];
    return [describeUnusable(ref, found.reason, found.state)];
  });
  return (await Promise.all(sentences)).flat();
}

const describeUnusable = (
  ref: ConnectorRef,
  reason: string,
  state: "missing" | "invalid",
): string =>
  `connector "${showRef(ref)}" ${state === "missing" ? "not found" : "is not valid"}: ${reason}`;

function unlessUnavailable(error: unknown): undefined {
  if (!(error instanceof Unavailable)) throw error;
}
