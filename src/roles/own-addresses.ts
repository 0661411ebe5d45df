import { networkInterfaces } from "node:os";
import { listOf, property } from "../connector/document.ts";
import type { KubeObject } from "../kube/object-store.ts";
import type { WatchedCache } from "../kube/watched-cache.ts";

/** Addresses of this machine, or of this Pod. */
export const interfaceAddresses = (): readonly string[] =>
  Object.values(networkInterfaces()).flatMap((list = []) => list.map(({ address }) => address));

/** Where the endpoints of the API server's own Service stand. */
export const apiEndpoints = {
  collection: "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
  name: "kubernetes",
} as const;

/** The addresses in an EndpointSlice. */
export const endpointAddresses = (
  slices: Pick<WatchedCache<KubeObject>, "list">,
): readonly string[] =>
  slices
    .list()
    .flatMap((slice) => listOf(property(slice, "endpoints")))
    .flatMap((endpoint) => listOf(property(endpoint, "addresses")))
    .filter((address) => typeof address === "string");
