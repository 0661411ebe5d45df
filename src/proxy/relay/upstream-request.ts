/** What a client's request becomes at the registry: its URL, its headers, and the scopes that it needs. */
import type { IncomingHttpHeaders } from "node:http";
import { withoutBrackets } from "../../connector/host-name.ts";
import { type RegistryAddress, upstreamRepository } from "../../connector/registry-address.ts";
import { parseLocation } from "../../upstream/location.ts";
import type { Upstream } from "../../upstream/upstream.ts";
import { product, userAgent } from "../../version.ts";
import type { AdmittedRequest } from "../admitted.ts";
import { connectionTokens, type HeaderFields, pickHeaders } from "../headers.ts";
import { RegistryError } from "../registry-error.ts";
import {
  joinQueries,
  mirrorParameter,
  parameterNames,
  withoutParameters,
  withQuery,
} from "../request/query.ts";
import type { Endpoint, RepositoryTarget } from "../request/request-target.ts";
import { type BlobMount, mountParameters } from "./blob-mount.ts";
import type { SessionSeal } from "./upload-session.ts";

/** A request to the registry of a connector, without its Authorization. */
export interface UpstreamRequest {
  readonly upstream: Upstream;
  readonly method: string;
  readonly url: URL;
  readonly headers: HeaderFields;
  /** A body that is held. Where it is undefined, the request has none, or it comes from the client while it is sent. */
  readonly body: Buffer | undefined;
  /** What a token has to allow for this request. */
  readonly scopes: readonly string[];
}

/**
 * Makes the registry's request out of the client's.
 * @param mount the mount that is to be tried; without it, a request that begins an upload asks for no mount
 * @throws RegistryError 404 for an upload that is none of this client's
 */
export function createUpstreamRequest(
  admitted: AdmittedRequest,
  upstream: Upstream,
  seal: SessionSeal,
  mount?: BlobMount,
): UpstreamRequest {
  const { request, method, target, connector, heldBody } = admitted;
  const repository = upstreamRepository(connector.address, target.repository);
  return {
    upstream,
    method,
    url: upstreamUrl(admitted, upstreamQuery(target, mount), seal),
    headers: headersForRegistry(request.headers),
    body: heldBody,
    scopes: scopesFor(method, target.endpoint, repository, mount?.mountFrom),
  };
}

function upstreamQuery({ query, endpoint }: RepositoryTarget, mount?: BlobMount): string {
  const translated =
    endpoint.kind === "uploads"
      ? (mount?.query ?? withoutParameters(query, mountParameters))
      : query;
  return withoutParameters(translated, [mirrorParameter]);
}

/** @throws RegistryError 404 for an upload that is none of this client's */
function upstreamUrl(
  { target, connector, identity }: AdmittedRequest,
  query: string,
  seal: SessionSeal,
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
  if (url === null || !isOwn || !isOwnOrigin(url.origin, address)) {
    throw new RegistryError(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload here", {
      detail:
        "it has expired, or was begun by another volume or in another repository; start it again",
    });
  }
  // A client can't replace what the registry has put into its upload URL: some servers take the last of two.
  const own = url.search.slice(1);
  url.search = joinQueries(own, withoutParameters(query, parameterNames(own)));
  return url;
}

/** What a registry's paths begin with for the repository that a client's target names, or for the catalog. */
export function upstreamPath({ repository }: RepositoryTarget, address: RegistryAddress): string {
  const api = `${address.basePath}/v2/`;
  return repository === "" ? api : `${api}${upstreamRepository(address, repository)}/`;
}

/** The end of the path of an endpoint, behind its repository: `tags/list`. */
export function lastPart(endpoint: Exclude<Endpoint, { kind: "upload" }>): string {
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
 * Whether an origin is the registry's own, and so may get the connector's credential: that of the address, and the https one
 * of the same host where the address is http at its default port. Many servers redirect from the one to the other (ggcr#1047).
 */
export const isOwnOrigin = (origin: string, address: RegistryAddress): boolean =>
  origin === address.origin || origin === secureOrigin(address);

/** `https://harbor.test` where the address is `http://harbor.test`, at the default port; undefined otherwise. */
const secureOrigin = ({ scheme, port, origin }: RegistryAddress): string | undefined =>
  scheme === "http" && port === 80 ? origin.replace(/^http:/, "https:") : undefined;

/**
 * The URL that a registry names in the Location or Link of a response that it does not redirect by, resolved against the URL
 * that this response is for; undefined where it is none.
 *
 * Registries behind a load balancer often name the wrong scheme or port for themselves
 * (distribution#970, #2225, #2862). A URL of the registry's host below its API gets the origin that has answered, where that
 * is the registry's own, and else the origin of the connector's address.
 */
export function resolveUpstream(
  text: string,
  requested: URL,
  address: RegistryAddress,
): URL | undefined {
  const url = parseLocation(text, requested);
  if (url === undefined || !isOfApi(url, address)) return url;
  const own = isOwnOrigin(requested.origin, address) ? requested.origin : address.origin;
  const origin = url.origin === requested.origin ? url.origin : own;
  return URL.parse(`${origin}${url.pathname}${url.search}`) ?? undefined;
}

/**
 * Where a registry's redirect leads, undefined where that is no URL. A wrong scheme or port is put right as in
 * `resolveUpstream`, but only where that leads elsewhere than was requested before: a registry may well keep its blobs at
 * another port of its own host, by the same paths.
 * @param requested the URLs that were requested so far; the last one is the one that redirects
 */
export function resolveRedirect(
  text: string,
  requested: readonly [URL, ...URL[]],
  address: RegistryAddress,
): URL | undefined {
  const from = requested.at(-1) ?? requested[0];
  const url = parseLocation(text, from);
  if (url === undefined || !isOfApi(url, address)) return url;
  const isUpgrade = from.origin === address.origin && url.origin === secureOrigin(address);
  if (isUpgrade) return URL.parse(`${url.origin}${url.pathname}${url.search}`) ?? undefined;
  const corrected = resolveUpstream(text, from, address);
  // From https to http leads nowhere, and no port speaks both, so there another query is enough to try.
  const isDowngrade = url.protocol === "http:" && from.protocol === "https:";
  const isSamePort = url.port !== "" && url.port === from.port;
  const part = isDowngrade || isSamePort ? "href" : "pathname";
  const isElsewhere = requested.every(
    (other) => other.origin !== corrected?.origin || other[part] !== corrected[part],
  );
  return url.origin === from.origin || isElsewhere ? corrected : url;
}

/** Whether a URL is below the API of the registry, at whatever port and scheme. */
const isOfApi = (url: URL, address: RegistryAddress): boolean =>
  withoutBrackets(url.hostname) === address.hostname &&
  url.pathname.startsWith(`${address.basePath}/v2/`);

/** Whether a request is for a blob's content. */
export const isForBlob = ({ url }: Pick<UpstreamRequest, "url">): boolean =>
  /\/blobs\/[^/]+$/.test(url.pathname);

/** Whether a request is for a manifest, by its tag or its digest. */
export const isForManifest = ({ url }: Pick<UpstreamRequest, "url">): boolean =>
  /\/manifests\/[^/]+$/.test(url.pathname);

/** Whether a request is for a list that a registry may send in pages: of tags, repositories or referrers. */
export const isForList = ({ url }: Pick<UpstreamRequest, "url">): boolean =>
  /\/(tags\/list|_catalog|referrers\/[^/]+)$/.test(url.pathname);

/**
 * The headers of a client that a registry gets, besides those with the prefixes below. All others stay here: the client's
 * credentials; what registries make absolute URLs from (docker-registry makes its Location out of X-Forwarded-Proto and
 * Host); and what some servers obey (X-HTTP-Method-Override, X-Original-URL, Remote-User).
 */
export const forRegistries: readonly string[] = [
  "cache-control",
  "digest",
  "range",
  "repr-digest",
  "traceparent",
  "tracestate",
  "want-content-digest",
  "want-digest",
  "want-repr-digest",
  "x-request-id",
];

/** Headers about the content, about what is accepted, conditions, and those of the registry protocol. */
export const prefixesForRegistries: readonly string[] = [
  "accept-",
  "content-",
  "docker-",
  "if-",
  "oci-",
];

const namesForRegistries: ReadonlySet<string> = new Set(["accept", ...forRegistries]);

const isForRegistries = (name: string): boolean =>
  namesForRegistries.has(name) ||
  (name !== "content-length" && // whoever sends the body frames it
    prefixesForRegistries.some((prefix) => name.startsWith(prefix)));

/** The only headers that a storage host gets. It needs no more to serve a blob. */
const forStorage: ReadonlySet<string> = new Set(["accept", "accept-encoding", "range", "if-range"]);

/** The client's headers as a registry gets them. The client's User-Agent stands behind ours. */
export function headersForRegistry(headers: IncomingHttpHeaders): HeaderFields {
  const named = connectionTokens(headers.connection);
  const kept = pickHeaders(headers, (name) => isForRegistries(name) && !named.has(name));
  const agent = headers["user-agent"];
  kept["user-agent"] = agent === undefined ? userAgent : `${userAgent} ${agent}`;
  return kept;
}

/** A registry request's headers as a host gets them that the registry redirects to. */
export function headersForStorage(headers: HeaderFields): HeaderFields {
  const kept = pickHeaders(headers, (name) => forStorage.has(name));
  kept["user-agent"] = userAgent;
  return kept;
}

/** Our name in a User-Agent, with any version of ours and without one. */
const ourProduct = new RegExp(`(?<!\\S)${product}(?:/\\S*)?(?!\\S)`, "g");

/**
 * Whether a request has come through proxies of this program twice. A connector whose address leads back here would make
 * it loop for ever. Our name in the User-Agent tells, with whichever versions, since Via makes some servers leave off
 * compression. One name alone is a proxy in front of this one.
 */
export const isLoop = ({ "user-agent": agent = "" }: IncomingHttpHeaders): boolean =>
  (agent.match(ourProduct)?.length ?? 0) >= 2;

/**
 * The scopes that a request needs, computed and never copied from a challenge: GHCR's ping names a
 * placeholder repository, and some registries name `pull` even for a push.
 *
 * Just what is needed: Docker Hub refuses a push scope to a read-only account, and Quay gives no
 * token at all where `delete` is among the scopes. The target comes first, since some token servers
 * look at the first scope alone.
 * @param repository as the registry calls it
 * @param mountFrom the repository that a blob is to be mounted from, as the registry calls it
 */
function scopesFor(
  method: string,
  endpoint: Endpoint,
  repository: string,
  mountFrom: string | undefined,
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
 * The scopes of a request with the right to push in place of its own: Quay gives no token for `delete`, and there
 * whoever may push may delete.
 */
export const asPushScopes = (scopes: readonly string[]): readonly string[] =>
  scopes.map((scope) => scope.replace(/:[^:]*$/, ":pull,push"));
