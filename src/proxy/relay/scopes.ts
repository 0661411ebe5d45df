import type { Endpoint } from "../request/request-target.ts";

/**
 * The scopes that a request needs, computed and never copied from a challenge: GHCR's ping names a
 * placeholder repository, and some registries name `pull` even for a push.
 *
 * Just what is needed: Docker Hub refuses a push scope to a read-only account, and Quay gives no
 * token at all where `delete` is among the scopes. The target comes first, since some token servers
 * look at the first scope alone.
 * @param repository as the registry calls it
 * @param mountFrom the repository that a blob is to be mounted from
 */
export function scopesFor(
  method: string,
  endpoint: Endpoint,
  repository: string,
  mountFrom?: string,
): readonly string[] {
  if (endpoint.kind === "catalog") return ["registry:catalog:*"];
  const scope = `repository:${repository}:${actionsOf(method, endpoint)}`;
  return mountFrom === undefined ? [scope] : [scope, `repository:${mountFrom}:pull`];
}

function actionsOf(method: string, endpoint: Endpoint): string {
  if (endpoint.kind === "uploads") return "pull,push";
  // Registries ask `delete` for the end of an upload, too, but grant it to few accounts.
  if (endpoint.kind === "upload") return method === "DELETE" ? "pull,push,delete" : "pull,push";
  if (method === "GET" || method === "HEAD") return "pull";
  return method === "DELETE" ? "delete" : "pull,push";
}
