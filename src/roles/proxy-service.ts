import { isIP } from "node:net";
import { property } from "../connector/document.ts";
import type { KubeObject } from "../kube/object-store.ts";

/** The path of a namespace's Services. */
export const servicesPath = (namespace: string): string =>
  `/api/v1/namespaces/${namespace}/services`;

/** The addresses of a Service in its cluster, the one of the cluster's first IP family first. */
export function clusterAddresses(service: KubeObject): readonly string[] {
  const addresses = property(property(service, "spec"), "clusterIPs");
  if (!Array.isArray(addresses)) return [];
  return addresses.filter((address) => typeof address === "string" && isIP(address) !== 0);
}
