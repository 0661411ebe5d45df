import type { Requester } from "./surroundings.ts";

/** As whom a Pod acts. */
export interface ServiceAccountRef {
  readonly namespace: string;
  readonly name: string;
}

/** The user and the groups that the API server gives a ServiceAccount's token. */
export const serviceAccountRequester = ({ namespace, name }: ServiceAccountRef): Requester => ({
  user: `system:serviceaccount:${namespace}:${name}`,
  groups: ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, "system:authenticated"],
});
