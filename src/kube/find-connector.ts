import { type Connector, parseConnector } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { type FindConnector, type FoundConnector, Unavailable } from "../connector/platform.ts";
import { type Checked, describeProblems } from "../connector/problem.ts";
import { oversizeProblem } from "./object-bounds.ts";
import type { KubeObject } from "./object-store.ts";
import type { WatchedCache } from "./watched-cache.ts";

/** Path of the collection with the Connectors of all namespaces. */
export const connectorsPath = "/apis/connectors.alauda.io/v1alpha1/connectors";

/**
 * Creates a function that finds connectors in a cache of all Connectors. It throws Unavailable until the cache has its
 * first list: until then nobody knows which Connectors exist.
 */
export function createConnectorFinder(
  cache: Pick<WatchedCache<KubeObject>, "get" | "ready" | "staleReason">,
): FindConnector {
  const parsed = new WeakMap<KubeObject, FoundConnector>();
  return async (ref) => {
    if (!cache.ready) {
      throw new Unavailable(
        `the Connectors of the cluster are not known yet: ${cache.staleReason}`,
      );
    }
    const object = cache.get(ref.name, ref.namespace);
    if (object === undefined) return missing(ref);
    const found = parsed.get(object) ?? parse(object);
    parsed.set(object, found);
    return found;
  };
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
