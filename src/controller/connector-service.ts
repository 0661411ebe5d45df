import { connectorApiVersion, connectorKind } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { ApiError, hasStatus } from "../kube/api-error.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { WatchedCache } from "../kube/watched-cache.ts";
import { bad, type ConditionState, good } from "./conditions.ts";
import { connectorPath } from "./connector-status.ts";
import { type DesiredObject, ensureObject, managedLabels } from "./ensure-object.ts";

/** Which connector a Service is of. */
export const connectorLabel = "connectors.alauda.io/connector";

export const serviceName = (connectorName: string): string => `c-${connectorName}`;

/**
 * The Service whose name is the host of a connector. It leads to the proxy's own Service, whose
 * traffic stays on the node; it goes when its Connector does. @param target the host of that Service
 */
export function connectorService(
  { namespace, name }: ConnectorRef,
  uid: string,
  target: string,
): DesiredObject {
  const port = (scheme: string, number: number): object => ({
    ...{ name: scheme, port: number, protocol: "TCP" },
  });
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: {
      name: serviceName(name),
      namespace,
      labels: { ...managedLabels, [connectorLabel]: name },
      ownerReferences: [
        { apiVersion: connectorApiVersion, kind: connectorKind, name, uid, controller: true },
      ],
    },
    spec: {
      type: "ExternalName",
      externalName: target,
      ports: [port("http", 80), port("https", 443)],
    },
  };
}

/** Whether the Connector of that uid is among an object's owners. */
export function isOwnedBy(object: KubeObject, uid: string): boolean {
  const owners = property(object.metadata, "ownerReferences");
  return Array.isArray(owners) && owners.some((owner) => property(owner, "uid") === uid);
}

export function serviceConflict({ namespace, name }: ConnectorRef, uid: string): ConditionState {
  const service = serviceName(name);
  const found = `found one that is not this Connector's (it has no ownerReference to uid ${uid})`;
  const advice = `kubectl delete service ${service} -n ${namespace}`;
  return bad(
    "ServiceConflict",
    `wanted Service ${showRef({ namespace, name: service })} for the proxy's address, ${found}: ` +
      `remove it (${advice}), or give the Connector another name`,
  );
}

/** The connector whose Service has that name; undefined for a name of another form. */
export const connectorOfService = (name: string): string | undefined =>
  name.startsWith("c-") ? name.slice("c-".length) : undefined;

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
export type EnsureService = (connector: KubeObject) => Promise<ConditionState | undefined>;

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

function leadsTo({ namespace, name }: ConnectorRef, target: string): ConditionState {
  const service = showRef({ namespace, name: serviceName(name) });
  return good("ServiceFound", `Service ${service} leads to ${target}`);
}
