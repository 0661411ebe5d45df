import type { IncomingHttpHeaders } from "node:http";
import { type RegistryAddress, upstreamRepository } from "../../connector/registry-address.ts";
import type { Admitted, Sealing } from "../admitted.ts";
import { connectionTokens, type Headers, hopByHop, pick } from "../headers.ts";
import { RegistryError } from "../registry-error.ts";
import { joinQueries, parameterNames, withoutParameters, withQuery } from "../request/query.ts";
import type { Endpoint, RepositoryTarget } from "../request/request-target.ts";

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

/**
 * What a registry must not hear of a client: its credentials, and what registries build absolute
 * URLs from (docker-registry makes its Location out of X-Forwarded-Proto and Host).
 */
const notForRegistries: ReadonlySet<string> = new Set([
  ...hopByHop,
  "authorization",
  "content-length", // whoever sends the body frames it
  "cookie",
  "expect",
  "forwarded",
  "host",
  "user-agent",
  "via",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-port",
  "x-forwarded-prefix",
  "x-forwarded-proto",
  "x-real-ip",
]);

/** Headers that a storage host gets to hear; it needs no more to serve a blob. */
const forStorage = ["accept", "accept-encoding", "range", "if-range"];

const product = "oci-connector";

/** The client's headers as a registry gets them; the client's User-Agent stands behind ours. */
export function headersForRegistry(headers: IncomingHttpHeaders): Headers {
  const named = connectionTokens(headers.connection);
  const kept = pick(headers, (name) => !notForRegistries.has(name) && !named.has(name));
  const agent = headers["user-agent"];
  kept["user-agent"] = agent === undefined ? product : `${product} ${agent}`;
  return kept;
}

/**
 * Whether a request has come through this proxy twice: a connector whose address leads back here would go
 * round for ever. Our name in the User-Agent tells, since Via makes some servers leave off compression.
 */
export const goesRound = ({ "user-agent": agent = "" }: IncomingHttpHeaders): boolean =>
  agent.startsWith(`${product} ${product}`);

/** The same for a host that a registry redirects to. */
export function headersForStorage(headers: Headers): Headers {
  return { ...pick(headers, (name) => forStorage.includes(name)), "user-agent": product };
}

/**
 * The URL that a registry names in a Location or Link, resolved against the URL that was asked; undefined where it is none.
 *
 * Registries behind a load balancer often name the wrong scheme or port for themselves
 * (distribution#970, #2225, #2862): what lies below their API is asked where the API is.
 */
export function resolveUpstream(
  text: string,
  asked: URL,
  address: RegistryAddress,
): URL | undefined {
  const url = URL.parse(text, asked.href);
  if (url === null || !["http:", "https:"].includes(url.protocol)) return undefined;
  const sameHost = url.hostname.replace(/^\[|\]$/g, "") === address.hostname;
  if (!sameHost || !url.pathname.startsWith(`${address.basePath}/v2/`)) return url;
  return URL.parse(`${address.origin}${url.pathname}${url.search}`) ?? undefined;
}

/** What a registry's paths begin with for the repository that a client's target names, or for the catalog. */
export function upstreamPath({ repository }: RepositoryTarget, address: RegistryAddress): string {
  const api = `${address.basePath}/v2/`;
  return repository === "" ? api : `${api}${upstreamRepository(address, repository)}/`;
}
