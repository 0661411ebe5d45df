/** Finds the connectors that a client of forward mode means: it speaks to registries under their own addresses. */
import type { Connector } from "../../connector/connector.ts";
import { type ConnectorRef, showRef } from "../../connector/connector-ref.ts";
import type { Identity } from "../../connector/platform.ts";
import { isOriginOf, type RegistryAddress } from "../../connector/registry-address.ts";
import type { AdmissionOptions } from "../admission.ts";
import { denied } from "../registry-error.ts";

/** A connector that may be used, and the one of its addresses that a client speaks to. */
export interface ConnectorMatch {
  readonly ref: ConnectorRef;
  readonly address: RegistryAddress;
}

/** The connectors that have an address at an origin, among those that a client has named. */
export interface ConnectorMatches {
  /** In the order of their base paths, the longest first, and then in the order in which they were named. */
  readonly matches: readonly ConnectorMatch[];
  /** Why a connector that has an address there may not be used. */
  readonly refusal: string | undefined;
}

/**
 * Finds the connectors that have an address at an origin and may be used. A client hears of a connector that it may not use
 * only where that is in its own namespace.
 * @param origin scheme, host and port, as URLs have them: `https://harbor.example.com`
 * @param named the connectors that the client has named
 * @throws Unavailable
 */
export async function findConnectorMatches(
  origin: string,
  named: readonly ConnectorRef[],
  identity: Identity,
  { findConnector, mayUse }: Pick<AdmissionOptions, "findConnector" | "mayUse">,
): Promise<ConnectorMatches> {
  let refusal: string | undefined;
  const match = async (ref: ConnectorRef): Promise<readonly ConnectorMatch[]> => {
    const found = await findConnector(ref);
    if (found.state !== "found") return [];
    const addresses = addressesOf(found.connector).filter((address) => isOriginOf(origin, address));
    if (addresses.length === 0) return [];
    const allowed = await mayUse(identity, ref, "pull");
    if (allowed.ok) return addresses.map((address) => ({ ref, address }));
    if (ref.namespace === identity.pod?.namespace) refusal = allowed.reason;
    return [];
  };
  const matches = (await Promise.all(named.map(match)))
    .flat()
    .toSorted((one, other) => other.address.basePath.length - one.address.basePath.length);
  return { matches, refusal };
}

const addressesOf = ({ address, addressExtensions }: Connector): readonly RegistryAddress[] => [
  address,
  ...addressExtensions,
];

const connectorsAtAddresses = new WeakMap<Connector, Map<RegistryAddress, Connector>>();

/**
 * A connector with another one of its addresses in the place of `address`, and the same credential. It has a uid of its own,
 * since connections, tokens and uploads of one address are not valid at another.
 * @returns the connector itself at its own address; undefined where the address is none of its addresses any more
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

/**
 * The connector of a match, at the address of the match.
 * @throws RegistryError 403 where the connector was changed in the meantime and no longer has that address
 */
export function matchedConnector(
  connector: Connector,
  { ref, address }: ConnectorMatch,
): Connector {
  const there = connectorAtAddress(connector, address);
  if (there !== undefined) return there;
  throw denied(`the connector ${showRef(ref)} is no longer at ${address.origin}`);
}
