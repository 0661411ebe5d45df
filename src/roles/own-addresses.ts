import { networkInterfaces } from "node:os";
import { listOf, property } from "../connector/document.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { WatchedCache } from "../kube/watched-cache.ts";

/** The addresses of this machine's network interfaces, or of this Pod's. */
export const interfaceAddresses = (): readonly string[] =>
  Object.values(networkInterfaces()).flatMap((list = []) => list.map(({ address }) => address));

/** Collection and name of the EndpointSlice with the addresses of the API server itself. */
export const apiEndpoints = {
  collection: "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
  name: "kubernetes",
} as const;

/** The addresses in EndpointSlices. */
export const endpointAddresses = (
  slices: Pick<WatchedCache<KubeObject>, "list">,
): readonly string[] =>
  slices
    .list()
    .flatMap((slice) => listOf(property(slice, "endpoints")))
    .flatMap((endpoint) => listOf(property(endpoint, "addresses")))
    .filter((address) => typeof address === "string");
