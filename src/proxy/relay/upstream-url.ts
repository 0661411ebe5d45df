import type { Admitted, Sealing } from "../admitted.ts";
import { RegistryError } from "../registry-error.ts";
import { joinQueries, parameterNames, withoutParameters, withQuery } from "../request/query.ts";
import type { Endpoint } from "../request/request-target.ts";
import { upstreamPath } from "./client-paths.ts";

/**
 * Where the registry is asked for what a client has asked for.
 * @throws RegistryError 404 for an upload that is none of this client's
 */
export function upstreamUrl(
  { target, connector, identity }: Admitted,
  query: string,
  { seal }: Sealing,
): URL {
  const { endpoint, repository } = target;
  const { address, uid } = connector;
  if (endpoint.kind !== "upload") {
    const path = `${upstreamPath(target, address)}${lastPart(endpoint)}`;
    return new URL(withQuery(`${address.origin}${path}`, query));
  }
  const session = seal.open(endpoint.session);
  const url = URL.parse(session?.url ?? "");
  const isOwn =
    session?.connectorUid === uid &&
    session.repository === repository &&
    session.subject === identity.subject;
  if (url === null || !isOwn || url.origin !== address.origin) {
    throw new RegistryError(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload here", {
      detail:
        "it has expired, or was begun by another volume or in another repository; start it again",
    });
  }
  // What the registry has said of its upload is not for the client to say again: some servers take the last of two.
  const own = url.search.slice(1);
  url.search = joinQueries(own, withoutParameters(query, parameterNames(own)));
  return url;
}

function lastPart(endpoint: Exclude<Endpoint, { kind: "upload" }>): string {
  switch (endpoint.kind) {
    case "catalog":
      return "_catalog";
    case "manifest":
      return `manifests/${endpoint.reference}`;
    case "blob":
      return `blobs/${endpoint.digest}`;
    case "uploads":
      return "blobs/uploads/";
    case "tags":
      return "tags/list";
    case "referrers":
      return `referrers/${endpoint.digest}`;
  }
}
