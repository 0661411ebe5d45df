import { type Connector, isOciClass, parseConnector } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import {
  type ConnectorPlace,
  type ConnectorsAt,
  type FindConnector,
  type FoundConnector,
  Unavailable,
} from "../connector/platform.ts";
import { type Checked, describeProblems } from "../connector/problem.ts";
import { parseRegistryAddress, type RegistryAddress } from "../connector/registry-address.ts";
import { oversizeProblem } from "./object-bounds.ts";
import type { KubeObject } from "./object-store.ts";
import type { WatchedCache } from "./watched-cache.ts";

const apiPath = "/apis/connectors.alauda.io/v1alpha1";

/** Path of the collection with the Connectors of all namespaces. */
export const connectorsPath: string = `${apiPath}/connectors`;

/** Path of the collection with the Connectors of one namespace. */
export const connectorsPathIn = (namespace: string): string =>
  `${apiPath}/namespaces/${namespace}/connectors`;

/**
 * Creates a function that finds connectors in a cache of all Connectors. It throws Unavailable until the cache has its
 * first list: until then nobody knows which Connectors exist.
 */
export function createConnectorFinder(
  cache: Pick<WatchedCache<KubeObject>, "get" | "ready" | "staleReason">,
): FindConnector {
  const parsed = new WeakMap<KubeObject, FoundConnector>();
  return async (ref) => {
    checkReady(cache);
    const object = cache.get(ref.name, ref.namespace);
    if (object === undefined) return missing(ref);
    const found = parsed.get(object) ?? parse(object);
    parsed.set(object, found);
    return found;
  };
}

function checkReady({
  ready,
  staleReason,
}: Pick<WatchedCache<KubeObject>, "ready" | "staleReason">): void {
  if (ready) return;
  throw new Unavailable(`the Connectors of the cluster are not known yet: ${staleReason}`);
}

/**
 * Creates a function that lists the connectors at an address, from an index that follows the cache: what tenants write
 * costs no request anything. It has to be created before the cache has its first list. The rest of a document is not
 * looked at, so some of the connectors may be invalid.
 */
export function createConnectorIndex(
  cache: Pick<WatchedCache<KubeObject>, "onChange" | "ready" | "staleReason">,
): ConnectorsAt {
  /** By namespace and origin, then by name. */
  const places = new Map<string, Map<string, ConnectorPlace>>();
  const origins = new Map<string, string>();
  const keyOf = (namespace: string, origin: string): string => `${namespace} ${origin}`;

  function remove({ namespace, name }: ConnectorRef): void {
    const ref = showRef({ namespace, name });
    const key = keyOf(namespace, origins.get(ref) ?? "");
    const there = places.get(key);
    origins.delete(ref);
    there?.delete(name);
    if (there?.size === 0) places.delete(key);
  }

  cache.onChange(({ name, namespace = "", object }) => {
    const ref = { namespace, name };
    remove(ref);
    const address = object && addressOf(object);
    if (address === undefined) return;
    const { origin, basePath } = address;
    const key = keyOf(namespace, origin);
    const there = places.get(key) ?? new Map<string, ConnectorPlace>();
    places.set(key, there.set(name, { ref, basePath }));
    origins.set(showRef(ref), origin);
  });

  return (namespace, origin) => {
    checkReady(cache);
    return [...(places.get(keyOf(namespace, origin))?.values() ?? [])];
  };
}

/** The address of a Connector of ours, whether or not the rest of it is valid. */
function addressOf(object: KubeObject): RegistryAddress | undefined {
  const spec = property(object, "spec");
  if (!isOciClass(property(spec, "connectorClassName"))) return undefined;
  const address = parseRegistryAddress(property(spec, "address"), "spec.address");
  return address.ok ? address.value : undefined;
}

function parse(object: KubeObject): FoundConnector {
  const connector = parseListedConnector(object);
  return connector.ok
    ? { state: "found", connector: connector.value }
    : { state: "invalid", reason: describeProblems(connector.problems) };
}

const checked = new WeakMap<KubeObject, Checked<Connector>>();

/** Parses a Connector of a watched cache, once. One that is too large is invalid, whatever its class. */
export function parseListedConnector(object: KubeObject): Checked<Connector> {
  const known = checked.get(object);
  if (known !== undefined) return known;
  const problem = oversizeProblem(object);
  const parsed: Checked<Connector> =
    problem === undefined ? parseConnector(object) : { ok: false, problems: [problem] };
  checked.set(object, parsed);
  return parsed;
}

function missing(ref: ConnectorRef): FoundConnector {
  const list = `kubectl get connectors -n ${ref.namespace}`;
  const reason = `there is no Connector ${showRef(ref)}; \`${list}\` lists those that exist`;
  return { state: "missing", reason };
}
