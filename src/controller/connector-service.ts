import { connectorApiVersion, connectorKind } from "../connector/connector.ts";
import { type ConnectorRef, showRef } from "../connector/connector-ref.ts";
import { property } from "../connector/document.ts";
import type { KubeObject } from "../kube/object-store.ts";
import { bad, type Finding } from "./conditions.ts";
import { type Manifest, managedLabels } from "./desired-object.ts";

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
): Manifest {
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

export function serviceConflict({ namespace, name }: ConnectorRef, uid: string): Finding {
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
