/** Finds the connectors that a client of forward mode means: it speaks to registries under their own addresses. */
import type { Connector } from "../../connector/connector.ts";
import { type ConnectorRef, showRef } from "../../connector/connector-ref.ts";
import type { Identity } from "../../connector/platform.ts";
import { isOriginOf, type RegistryAddress } from "../../connector/registry-address.ts";
import { type AdmissionOptions, actionOf, mayAct } from "../admission.ts";
import { denied, isForbidden } from "../registry-error.ts";
import type { RequestTarget } from "../request/request-target.ts";

/** A connector that may be used, and the one of its addresses that a client speaks to. */
export interface ConnectorMatch {
  readonly ref: ConnectorRef;
  readonly connector: Connector;
  readonly address: RegistryAddress;
}

/** The connectors that have an address at an origin, among those that a client has named. */
export interface ConnectorMatches {
  /** In the order of their base paths, the longest first, and then in the order in which they were named. */
  readonly matches: readonly ConnectorMatch[];
  /** Why a connector that has an address there may not be used. */
  readonly refusal: string | undefined;
  /** A connector that may be used and is at the same host by the other scheme; undefined where one is at the origin. */
  readonly byOtherScheme: ConnectorMatch | undefined;
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
    const { connector } = found;
    const addresses = addressesOf(connector).filter((address) => isAtSameHost(origin, address));
    const isThere = addresses.some((address) => isOriginOf(origin, address));
    if (addresses.length === 0) return [];
    const allowed = await mayUse(identity, ref, "pull");
    if (allowed.ok) return addresses.map((address) => ({ ref, connector, address }));
    if (isThere && ref.namespace === identity.pod?.namespace) refusal = allowed.reason;
    return [];
  };
  const found = (await Promise.all(named.map(match))).flat();
  const matches = found
    .filter(({ address }) => isOriginOf(origin, address))
    .toSorted((one, other) => other.address.basePath.length - one.address.basePath.length);
  return { matches, refusal, byOtherScheme: matches.length === 0 ? found[0] : undefined };
}

/** Whether an origin is a registry's, or would be one if its scheme were the other, at the same port or at the default one. */
function isAtSameHost(origin: string, address: RegistryAddress): boolean {
  if (isOriginOf(origin, address)) return true;
  const { scheme, port } = address;
  const otherScheme = scheme === "http" ? "https" : "http";
  const byOtherScheme = otherScheme + address.origin.slice(scheme.length);
  return origin === byOtherScheme || origin === `${byOtherScheme}:${port}`;
}

/**
 * The error of a client that speaks the other scheme than the connector's address has, to a host where it may not go otherwise.
 * @param error of the attempt to go there
 * @returns the error itself, where that is not why
 */
export function explainScheme(
  error: unknown,
  origin: string,
  { byOtherScheme }: ConnectorMatches,
): unknown {
  if (byOtherScheme === undefined || !isForbidden(error)) return error;
  const { ref, address } = byOtherScheme;
  const spoken = origin.startsWith("https:") ? "https" : "http";
  const message = `the address of the connector ${showRef(ref)} is ${address.scheme} (${address.origin}), and the client speaks ${spoken}`;
  return denied(message, {
    detail:
      spoken === "https"
        ? "let the client use plain HTTP for that host (an insecure registry, --tls-verify=false, --plain-http), or write https:// in the connector's spec.address if the registry speaks it"
        : "let the client use https for that host",
  });
}

/** A request to a registry that several connectors are for. */
export interface RequestToMatch {
  readonly method: string;
  readonly target: RequestTarget;
  readonly identity: Identity;
}

/**
 * Chooses the connector of a request: the first one whose rules and rights let it, so that two accounts of one host can each
 * have repositories of their own.
 * @param matches connectors at the origin, all with the base path of the request's target
 * @returns the first one where none lets the request: it says why not
 * @throws Unavailable; RegistryError 429 where the rules are too many, and were asked too often
 */
export async function chooseConnector(
  matches: readonly [ConnectorMatch, ...ConnectorMatch[]],
  { method, target, identity }: RequestToMatch,
  { mayUse }: Pick<AdmissionOptions, "mayUse">,
): Promise<ConnectorMatch> {
  const [first, ...others] = matches;
  if (target === "base" || others.length === 0) return first;
  const action = actionOf(method, target.endpoint);
  for (const match of matches) {
    if (!mayAct(match.connector, action, target.repository, identity)) continue;
    if (action === "pull" || (await mayUse(identity, match.ref, "push")).ok) return match;
  }
  return first;
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
    mainAddress: connector.address,
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
