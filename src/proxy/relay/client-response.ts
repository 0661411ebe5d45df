/** The registry's response as the client gets it, its head and its body. */
import { validateHeaderValue } from "node:http";
import type { Connector } from "../../connector/connector.ts";
import { showRef } from "../../connector/connector-ref.ts";
import { parseJson, property } from "../../connector/document.ts";
import type { RegistryAddress } from "../../connector/registry-address.ts";
import type { ResponseHead, ResponseHeaders } from "../../upstream/http-client/http-exchange.ts";
import type { AdmittedRequest } from "../admitted.ts";
import { connectionTokens, type HeaderFields, hopByHop, pickResponseHeaders } from "../headers.ts";
import { badGateway, denied, type RegistryError } from "../registry-error.ts";
import { maxQueryBytes, parameter } from "../request/query.ts";
import { drain } from "../request/request-body.ts";
import type { RepositoryTarget } from "../request/request-target.ts";
import type { CollectedResponse, Hop, ResponseSink, UpstreamResponse } from "./exchange.ts";
import type { SessionSeal } from "./upload-session.ts";
import {
  isOwnOrigin,
  lastPart,
  resolveRedirect,
  resolveUpstream,
  upstreamPath,
} from "./upstream-request.ts";

/**
 * Passes a response on to the client as it comes. Its head goes out with the first bytes of its body: until then, the client
 * can still get an error in its place.
 */
export class ClientSink implements ResponseSink {
  readonly #admitted: AdmittedRequest;
  readonly #seal: SessionSeal;
  readonly #statuses: readonly number[] | undefined;
  /** The head, until it goes out. */
  #head: { readonly status: number; readonly headers: HeaderFields } | undefined;

  /** @param statuses of responses that are passed on; without them, every one is */
  constructor(admitted: AdmittedRequest, seal: SessionSeal, statuses?: readonly number[]) {
    this.#admitted = admitted;
    this.#seal = seal;
    this.#statuses = statuses;
  }

  begin(head: ResponseHead, hop: Hop): boolean {
    const { status } = head;
    if (this.#statuses?.includes(status) === false) return false;
    this.#admitted.report.upstreamStatus = status;
    const headers = clientHeaders(this.#admitted, head, hop, this.#seal);
    for (const [name, value] of Object.entries(headers)) {
      validateHeaderValue(name, String(value)); // what can't be sent has to be an error here
    }
    this.#head = { status, headers };
    return true;
  }

  write(chunk: Buffer, release: () => void): void {
    this.#sendHead();
    this.#admitted.response.write(chunk, release);
  }

  end(): undefined {
    this.#sendHead();
    this.#admitted.response.end();
  }

  #sendHead(): void {
    if (this.#head === undefined) return;
    this.#admitted.response.writeHead(this.#head.status, this.#head.headers);
    this.#head = undefined;
  }
}

/**
 * Sends a collected response on as it is.
 * @throws RegistryError where the connector's own account is refused, or the response shows its credential
 */
export function respondCollected(
  admitted: AdmittedRequest,
  collected: CollectedResponse,
  hop: Hop,
  seal: SessionSeal,
): void {
  const { status, body } = collected;
  const { connector, response, method, request, report } = admitted;
  report.upstreamStatus = status;
  if (status === 401 || status === 403) throw refusedByRegistry(connector, collected, hop);
  const isShown = hop.search.isInBody(body, collected.headers["content-encoding"]);
  if (isShown) throw showsCredential(hop, status);
  if (isShown === undefined) {
    throw badGateway(
      `${hop.url.host} answered ${status} with a compressed body that is too large to be searched for the connector's credential`,
    );
  }
  const headers = clientHeaders(admitted, collected, hop, seal);
  // A HEAD's Content-Length is of the content itself; an error's may promise more than came.
  if (method !== "HEAD" && status !== 204) headers["content-length"] = String(body.length);
  response.writeHead(status, headers);
  response.end(body);
  drain(request);
}

const showsCredential = (hop: Hop, status: number): RegistryError =>
  badGateway(`${hop.url.host} answered ${status} with the connector's credential in the response`);

/**
 * Redirects a client to the host where the registry keeps what it has requested.
 * @throws RegistryError 502 where a header shows the connector's credential
 */
export function respondWithRedirect(
  { response, report }: AdmittedRequest,
  { status, headers, hop }: UpstreamResponse,
  { href }: URL,
): void {
  report.upstreamStatus = status;
  const kept = pickResponseHeaders(headers, (name) => fromRedirect.has(name));
  if (hop.search.isInHeaders(kept)) throw showsCredential(hop, status);
  response.writeHead(status, { ...kept, location: href, "content-length": "0" }).end();
}

/**
 * The stored credential is at fault, not the client's: a 401 would make containerd ask five times and
 * others ask a person for a password. The registry's own words are not passed on, but for its error code.
 */
function refusedByRegistry(
  connector: Connector,
  { status, body }: CollectedResponse,
  { authorization, search }: Hop,
): RegistryError {
  const found = upstreamCode(body);
  const code = search.isIn(found) ? "" : found;
  const ref = showRef(connector);
  const isAnonymous = connector.secretName === undefined || authorization === undefined;
  const whom = isAnonymous
    ? `a request without a login${connector.name === "" ? "" : `, by the connector ${ref}`}`
    : `the account of the connector ${ref}`;
  return denied(`the registry ${connector.address.origin} answered ${status}${code} to ${whom}`, {
    detail:
      connector.secretName === undefined
        ? "the connector has no credential: set its spec.auth.secretRef, unless the registry allows anonymous access"
        : "check what that account may do in this repository, and the connector's Secret",
  });
}

function upstreamCode(body: Buffer): string {
  const errors = property(parseJson(body.toString("utf8")), "errors");
  const code = Array.isArray(errors) ? property(errors[0], "code") : undefined;
  return typeof code === "string" && /^[A-Z_]{1,40}$/.test(code) ? ` ${code}` : "";
}

/**
 * The registry's headers as the client gets them.
 * @throws RegistryError 502 where the registry sends an upload to another host, the next page of a list is lost, or the
 *   connector's credential is shown
 */
function clientHeaders(
  admitted: AdmittedRequest,
  { status, headers }: ResponseHead,
  hop: Hop,
  seal: SessionSeal,
): HeaderFields {
  const { target, connector } = admitted;
  const kept = hop.isStorage ? storageHeadersForClient(headers) : headersForClient(headers);
  if (hop.digest !== undefined) kept["docker-content-digest"] ??= hop.digest;
  if (headers.link !== undefined) {
    const link = clientLink([headers.link].flat().join(", "), hop.url, target, connector.address);
    if (link) kept.link = link;
  }
  if (headers.location) {
    const location = clientLocation(admitted, status, headers.location, hop, seal);
    if (location) kept.location = location;
  }
  if (hop.search.isInHeaders(kept)) throw showsCredential(hop, status);
  return kept;
}

/** Headers that a client must not get from a registry: how to log in to it, and what is for browsers of that host. */
const notForClients: ReadonlySet<string> = new Set([
  ...hopByHop,
  "alt-svc",
  "location", // rewritten
  "link", // rewritten
  "proxy-authentication-info",
  "public-key-pins",
  "set-cookie",
  "strict-transport-security",
  "www-authenticate",
  "x-registry-supports-signatures", // makes containers/image ask /extensions/v2/, which is no part of the API
]);

/** Headers of a storage host that describe the blob. Its others are about the storage, or about us. */
const fromStorage: ReadonlySet<string> = new Set([
  "accept-ranges",
  "age",
  "cache-control",
  "content-encoding",
  "content-length",
  "content-range",
  "content-type",
  "date",
  "docker-content-digest",
  "etag",
  "last-modified",
  "retry-after",
]);

/** Headers of a registry's redirect: what it leads to, and how long it holds. The others are about its body, or about us. */
const fromRedirect: ReadonlySet<string> = new Set([
  "age",
  "cache-control",
  "date",
  "docker-content-digest",
  "docker-distribution-api-version",
  "expires",
]);

/** A registry's headers as the client gets them, but for Location and Link. */
export function headersForClient(headers: ResponseHeaders): HeaderFields {
  const named = connectionTokens(headers.connection);
  return pickResponseHeaders(headers, (name) => !notForClients.has(name) && !named.has(name));
}

/** The headers of a host that the registry redirected to as the client gets them. */
export const storageHeadersForClient = (headers: ResponseHeaders): HeaderFields =>
  pickResponseHeaders(headers, (name) => fromStorage.has(name));

/**
 * A Location as the client gets it: a path of this proxy; for an upload that goes on, with the registry's URL sealed in it.
 * @returns undefined where a Location outside of the repository says nothing that the client could use
 * @throws RegistryError 502 where it is no URL, or leads an upload to another host or by a query that is too long
 */
function clientLocation(
  { target, connector, identity, method }: AdmittedRequest,
  status: number,
  location: string,
  hop: Hop,
  seal: SessionSeal,
): string | undefined {
  const { address } = connector;
  const isRedirect = status >= 300 && status < 400;
  const url = isRedirect
    ? resolveRedirect(location, [hop.url], address)
    : resolveUpstream(location, hop.url, address);
  if (url === undefined) throw badGateway("the registry sent a Location that is not a URL");
  if (!isUnderWay(method, status, target)) {
    return clientPath(url, target, address) ?? createdPath(target);
  }
  if (!isOwnOrigin(url.origin, address)) {
    if (hop.search.isInHost(url.hostname)) throw showsCredential(hop, status);
    throw badGateway(
      `the registry ${address.origin} directs the upload to ${url.origin}, which may not get the connector's credential`,
      {
        detail: "if that is the registry itself, its own address is set wrong (REGISTRY_HTTP_HOST)",
      },
    );
  }
  // It goes back to the registry with each part of the upload, beside what the client has to say.
  const queryBytes = url.search.slice(1).length;
  if (queryBytes > maxQueryBytes) {
    throw badGateway(
      `the registry ${address.origin} sent an upload URL whose query has ${queryBytes} bytes`,
      {
        detail: `the proxy takes at most ${maxQueryBytes} bytes; that is for the registry to change`,
      },
    );
  }
  const session = seal.seal({
    url: url.href,
    connectorUid: connector.uid,
    repository: target.repository,
    subject: identity.subject,
  });
  return `${target.prefix}${target.repository}/blobs/uploads/${session}`;
}

/** Whether an upload goes on after this response. Some registries answer 201 to a chunk, too (Amazon's, jdx/mise#11376). */
function isUnderWay(method: string, status: number, target: RepositoryTarget): boolean {
  const { kind } = target.endpoint;
  if (kind !== "upload" && kind !== "uploads") return false;
  const ends = kind === "upload" ? method === "PUT" : createdPath(target) !== undefined;
  return status !== 201 || !ends;
}

/** The path of what was just created, for registries that name it in a way of their own. */
function createdPath({
  prefix,
  repository,
  endpoint,
  query,
}: RepositoryTarget): string | undefined {
  const digest = parameter(query, "digest") ?? parameter(query, "mount");
  if (endpoint.kind === "manifest") return `${prefix}${repository}/manifests/${endpoint.reference}`;
  return digest === undefined ? undefined : `${prefix}${repository}/blobs/${digest}`;
}

/**
 * The path by which a client can request a URL of the registry, in the form that the client used itself. Undefined for
 * anything outside the repository. Paths are always absolute and hosts never named, since clients
 * refuse other hosts or send their credential there (CVE-2026-50151).
 */
export function clientPath(
  url: URL,
  target: RepositoryTarget,
  address: RegistryAddress,
): string | undefined {
  const inside = upstreamPath(target, address);
  if (!isOwnOrigin(url.origin, address) || !url.pathname.startsWith(inside)) return undefined;
  return `${clientPrefix(target)}${url.pathname.slice(inside.length)}${url.search}`;
}

const clientPrefix = ({ prefix, repository }: RepositoryTarget): string =>
  repository === "" ? prefix : `${prefix}${repository}/`;

/**
 * A Link header (RFC 8288) with the paths of its targets as clients have to request them. Links to what lies outside of the
 * repository are left out.
 * @param requested the URL whose response has the header: the last one, where the registry has redirected
 * @returns undefined where no link is left
 * @throws RegistryError 502 where the next page of a list would be left out: the list would look whole
 */
export function clientLink(
  link: string,
  requested: URL,
  target: RepositoryTarget,
  address: RegistryAddress,
): string | undefined {
  const links = [...link.matchAll(linkValue)];
  const isLost = ([, text = "", params = ""]: RegExpMatchArray): boolean =>
    isNext(params) && clientTarget(text, true, requested, target, address) === undefined;
  if (isList(target) && (links.some(isLost) || /\bnext\b/i.test(unreadableIn(link, links)))) {
    throw badGateway(
      `${requested.host} names a next page of the list that can't be requested through this connector`,
      { detail: "the list goes on there, and would look complete without it" },
    );
  }
  const kept = links.flatMap(([, text = "", params = ""]) => {
    const path = clientTarget(text, isNext(params), requested, target, address);
    return path === undefined ? [] : [`<${path}>${params.trimEnd()}`];
  });
  return kept.length === 0 ? undefined : kept.join(", ");
}

/** Whether a request is for a list, wherever redirects have led it. */
const isList = ({ endpoint: { kind } }: RepositoryTarget): boolean =>
  kind === "tags" || kind === "catalog" || kind === "referrers";

/**
 * A link-value of RFC 8288: its target, and the parameters behind it. A quote that is not closed takes the rest of the
 * header with it: otherwise each link before it would be searched to the end for the other quote.
 */
const linkValue = /<([^<>]*)>((?:[^,"<]|"(?:[^"\\]|\\.)*")*)(".*)?/g;

/** What a Link header has beside its readable link-values: what is none, and those with a quote that is not closed. */
function unreadableIn(link: string, links: readonly RegExpMatchArray[]): string {
  const unclosed = links.map(([whole, , , behind]) => (behind === undefined ? "" : whole));
  return [link.replace(linkValue, " "), ...unclosed].join(" ");
}

/** Whether the parameters of a link-value have the relation `next`, perhaps beside others. */
function isNext(params: string): boolean {
  const [, quoted, token] = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))/i.exec(params) ?? [];
  return (quoted ?? token ?? "").toLowerCase().split(/\s+/).includes("next");
}

/** The path of a link's target as a client has to request it, undefined for what it can't request. */
function clientTarget(
  text: string,
  isNextPage: boolean,
  requested: URL,
  target: RepositoryTarget,
  address: RegistryAddress,
): string | undefined {
  const url = resolveUpstream(text, requested, address);
  if (url === undefined) return undefined;
  return (
    clientPath(url, target, address) ?? pageOfList(url, isNextPage, requested, target, address)
  );
}

/**
 * A page of the list that was requested, which a registry may know under another host, another repository's name or without
 * its base path. It is the query that tells the page; without the Link, clients would take the list to end here.
 */
function pageOfList(
  url: URL,
  isNextPage: boolean,
  requested: URL,
  target: RepositoryTarget,
  address: RegistryAddress,
): string | undefined {
  const { endpoint } = target;
  if (url.search === "" || endpoint.kind === "upload") return undefined;
  const isAtRegistry = isOwnOrigin(requested.origin, address);
  const path = isAtRegistry
    ? requested.pathname.slice(address.basePath.length)
    : requested.pathname;
  const isSameList =
    url.pathname.endsWith(path) || (isNextPage && url.pathname.endsWith(`/${lastPart(endpoint)}`));
  return isSameList ? `${clientPrefix(target)}${lastPart(endpoint)}${url.search}` : undefined;
}
