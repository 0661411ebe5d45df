import { connectorApiVersion, connectorKind } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import type { ApiClient } from "../kube/api-client.ts";
import { ApiError, hasStatus } from "../kube/api-error.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { WatchedCache } from "../kube/watched-cache.ts";
import { bad, type ConditionState, good } from "./conditions.ts";
import { connectorApiPath } from "./connector-status.ts";
import { type DesiredObject, ensureObject, managedLabels } from "./ensure-object.ts";

/** The label of a Service with the name of its connector. */
export const connectorLabel = "connectors.alauda.io/connector";

/** The name of the Service of a connector. */
export const serviceName = (connectorName: string): string => `c-${connectorName}`;

/**
 * The desired Service of a connector, whose name is the connector's host. It leads to the proxy's own Service, whose
 * traffic stays on the node. Kubernetes deletes it with its Connector.
 * @param uid the uid of the Connector
 * @param target the host of the proxy's own Service
 */
export function connectorService(
  { namespace, name }: ConnectorRef,
  uid: string,
  target: string,
): DesiredObject {
  const port = (scheme: string, number: number): object => ({
    name: scheme,
    port: number,
    protocol: "TCP",
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

/** Whether the Connector with a uid is among an object's owners. */
export function isOwnedBy(object: KubeObject, uid: string): boolean {
  const owners = property(object.metadata, "ownerReferences");
  return Array.isArray(owners) && owners.some((owner) => property(owner, "uid") === uid);
}

/**
 * The state of ProxyServiceReady where a Service of that name belongs to somebody else.
 * @param uid the uid of the Connector
 */
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

/** The name of the connector whose Service has a name; undefined for a name of another form. */
export const connectorOfService = (name: string): string | undefined =>
  name.startsWith("c-") ? name.slice("c-".length) : undefined;

/** What is needed to make the Services of connectors. */
export interface EnsureServiceOptions {
  readonly client: Pick<ApiClient, "request">;
  /** The Services with our label. */
  readonly services: Pick<WatchedCache<KubeObject>, "get">;
  /** The host of the proxy's own Service, where those of connectors lead. */
  readonly target: string;
}

/**
 * Makes the Service of a connector what it should be.
 * @returns the state of ProxyServiceReady; undefined where the Connector is gone
 * @throws Unavailable, and ApiError 409 where the Service has just been replaced
 */
export type EnsureService = (connector: KubeObject) => Promise<ConditionState | undefined>;

/** Creates the function that makes the Services of connectors. */
export function createServiceEnsurer({
  client,
  services,
  target,
}: EnsureServiceOptions): EnsureService {
  return async (connector) => {
    const { name, namespace = "", uid } = connector.metadata;
    const cached = services.get(serviceName(name), namespace);
    // Kubernetes deletes a Service whose Connector is gone: making it again would never end.
    if (cached === undefined && !(await connectorExists(client, connector))) return undefined;
    const ref = { namespace, name };
    const desired = connectorService(ref, uid, target);
    const isOwned = (object: KubeObject): boolean => isOwnedBy(object, uid);
    const collection = `/api/v1/namespaces/${namespace}/services`;
    try {
      const { isOurs } = await ensureObject({
        client,
        collection,
        desired,
        cached,
        isOurs: isOwned,
      });
      return isOurs ? serviceFound(ref, target) : serviceConflict(ref, uid);
    } catch (error) {
      if (!(error instanceof ApiError) || hasStatus(error, 409)) throw error;
      return bad("ServiceRefused", `the API server refuses the Service: ${error.message}`);
    }
  };
}

/** Whether the API server has this very Connector. */
async function connectorExists(
  client: Pick<ApiClient, "request">,
  connector: KubeObject,
): Promise<boolean> {
  try {
    const found = (await client.request({ path: connectorApiPath(connector) })) as KubeObject;
    return found.metadata.uid === connector.metadata.uid;
  } catch (error) {
    if (hasStatus(error, 404)) return false;
    throw error;
  }
}

function serviceFound({ namespace, name }: ConnectorRef, target: string): ConditionState {
  const service = showRef({ namespace, name: serviceName(name) });
  return good("ServiceFound", `Service ${service} leads to ${target}`);
}
