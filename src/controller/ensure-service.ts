import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { ApiError, hasStatus } from "../kube/api-error.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { WatchedCache } from "../kube/watched-cache.ts";
import { bad, type Finding, good } from "./conditions.ts";
import { connectorService, isOwnedBy, serviceConflict, serviceName } from "./connector-service.ts";
import { connectorPath } from "./connector-status.ts";
import { ensureObject } from "./ensure-object.ts";

export interface EnsureServiceOptions {
  readonly client: Pick<ApiClient, "request">;
  /** Those that are labelled as ours. */
  readonly services: Pick<WatchedCache<KubeObject>, "get">;
  /** The host of the proxy's own Service. */
  readonly target: string;
}

/**
 * Makes a connector's Service. @returns what to say of it, undefined where the Connector is gone
 * @throws Unavailable, and ApiError 409 where it has just been replaced
 */
export type EnsureService = (connector: KubeObject) => Promise<Finding | undefined>;

export function serviceEnsurer({ client, services, target }: EnsureServiceOptions): EnsureService {
  return async (connector) => {
    const { name, namespace = "", uid } = connector.metadata;
    const seen = services.get(serviceName(name), namespace);
    // Kubernetes removes a Service whose Connector is gone: making it again would go on and on.
    if (seen === undefined && !(await isThere(client, connector))) return undefined;
    const ref = { namespace, name };
    const wanted = connectorService(ref, uid, target);
    const isOurs = (object: KubeObject): boolean => isOwnedBy(object, uid);
    const collection = `/api/v1/namespaces/${namespace}/services`;
    try {
      const { ours } = await ensureObject({ client, collection, wanted, seen, isOurs });
      return ours ? leadsTo(ref, target) : serviceConflict(ref, uid);
    } catch (error) {
      if (!(error instanceof ApiError) || hasStatus(error, 409)) throw error;
      return bad("ServiceRefused", `the API server refuses the Service: ${error.message}`);
    }
  };
}

async function isThere(
  client: Pick<ApiClient, "request">,
  connector: KubeObject,
): Promise<boolean> {
  try {
    const found = (await client.request({ path: connectorPath(connector) })) as KubeObject;
    return found.metadata.uid === connector.metadata.uid;
  } catch (error) {
    if (hasStatus(error, 404)) return false;
    throw error;
  }
}

function leadsTo({ namespace, name }: ConnectorRef, target: string): Finding {
  const service = showRef({ namespace, name: serviceName(name) });
  return good("ServiceFound", `Service ${service} leads to ${target}`);
}
