import { networkInterfaces } from "node:os";
import type { UpstreamSettings } from "../config/cluster-settings.ts";
import { listOf, property } from "../connector/document.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { WatchedCache } from "../kube/watched-cache.ts";
import {
  type ApiServerAddress,
  loopbackNetworks,
  type NearAddresses,
} from "../upstream/upstream-policy.ts";

/** The addresses of this machine's network interfaces, or of this Pod's. */
export const interfaceAddresses = (): readonly string[] =>
  Object.values(networkInterfaces()).flatMap((list = []) => list.map(({ address }) => address));

/** Collection and name of the EndpointSlice with the addresses of the API server itself. */
export const apiEndpoints = {
  collection: "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
  name: "kubernetes",
} as const;

/** The addresses and ports in the EndpointSlices of the API server. */
export const apiServerEndpoints = (
  slices: Pick<WatchedCache<KubeObject>, "list">,
): readonly ApiServerAddress[] =>
  slices.list().flatMap((slice) => {
    const ports = listOf(property(slice, "ports"))
      .map((entry) => property(entry, "port"))
      .filter((port) => typeof port === "number");
    return listOf(property(slice, "endpoints"))
      .flatMap((endpoint) => listOf(property(endpoint, "addresses")))
      .filter((address) => typeof address === "string")
      .map((address) => ({ address, ports }));
  });

/** What is near a role that connects to registries in a cluster. */
export const nearAddresses = (
  { nodeAddresses, apiServiceAddresses }: Omit<UpstreamSettings, "upstreams">,
  apiServer: Pick<WatchedCache<KubeObject>, "list">,
): NearAddresses => ({
  pod: [...loopbackNetworks, ...interfaceAddresses()],
  node: nodeAddresses,
  apiServer: [
    ...apiServiceAddresses.map((address) => ({ address, ports: [] })),
    ...apiServerEndpoints(apiServer),
  ],
});
