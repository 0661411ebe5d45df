import type { Connector } from "../../connector/connector.ts";
import { type ConnectorRef, showRef } from "../../connector/connector-ref.ts";
import { isOriginOf, type RegistryAddress } from "../../connector/registry-address.ts";
import type { Identity } from "../../connector/surroundings.ts";
import type { AdmissionOptions } from "../admission.ts";
import { denied } from "../registry-error.ts";

/** A connector that may be used, and the one of its addresses that a client speaks to. */
export interface ConnectorMatch {
  readonly ref: ConnectorRef;
  readonly address: RegistryAddress;
}

/** Which of the connectors that a client has named stand behind an origin. */
export interface ConnectorMatches {
  /** Longest base path first, then as they were named. */
  readonly matches: readonly ConnectorMatch[];
  /** Why one that stands there may not be used. */
  readonly refusal: string | undefined;
}

/**
 * Who may not use a connector is not told that it stands there, unless it is one of their own namespace.
 * @throws Unavailable
 */
export async function findConnectorMatches(
  origin: string,
  named: readonly ConnectorRef[],
  identity: Identity,
  { findConnector, mayUse }: Pick<AdmissionOptions, "findConnector" | "mayUse">,
): Promise<ConnectorMatches> {
  let refusal: string | undefined;
  const look = async (ref: ConnectorRef): Promise<readonly ConnectorMatch[]> => {
    const answer = await findConnector(ref);
    if (answer.state !== "found") return [];
    const addresses = addressesOf(answer.connector).filter((address) =>
      isOriginOf(origin, address),
    );
    if (addresses.length === 0) return [];
    const allowed = await mayUse(identity, ref, "pull");
    if (allowed.ok) return addresses.map((address) => ({ ref, address }));
    if (ref.namespace === identity.pod?.namespace) refusal = allowed.reason;
    return [];
  };
  const found = (await Promise.all(named.map(look))).flat();
  const serving = found.toSorted(
    (one, other) => other.address.basePath.length - one.address.basePath.length,
  );
  return { matches: serving, refusal };
}

const addressesOf = ({ address, addressExtensions }: Connector): readonly RegistryAddress[] => [
  address,
  ...addressExtensions,
];

const connectorsAtAddresses = new WeakMap<Connector, Map<RegistryAddress, Connector>>();

/**
 * A connector as it is asked at another one of its addresses, with the same credential; undefined where it is
 * no address of its any more. It has an id of its own, since no connection, token or upload of one address is good at another.
 */
export function connectorAtAddress(
  connector: Connector,
  { origin, basePath }: RegistryAddress,
): Connector | undefined {
  const addresses = addressesOf(connector);
  const address = addresses.find((one) => one.origin === origin && one.basePath === basePath);
  if (address === undefined || address === connector.address) return address && connector;
  const known = connectorsAtAddresses.get(connector) ?? new Map<RegistryAddress, Connector>();
  connectorsAtAddresses.set(connector, known);
  const there = known.get(address) ?? {
    ...connector,
    uid: `${connector.uid} at ${origin}${basePath}`,
    address,
    addressExtensions: addresses.filter((one) => one !== address),
    // All of them are the registry's own hosts, and so is a token server there.
    allowedRealmHosts: [...connector.allowedRealmHosts, ...addresses.map((one) => one.hostname)],
  };
  known.set(address, there);
  return there;
}

/** @throws RegistryError 403 where the connector was changed in this moment */
export function matchedConnector(
  connector: Connector,
  { ref, address }: ConnectorMatch,
): Connector {
  const there = connectorAtAddress(connector, address);
  if (there !== undefined) return there;
  throw denied(`the connector ${showRef(ref)} is no longer at ${address.origin}`);
}
