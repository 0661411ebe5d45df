/** The registry's response as the client gets it, its head and its body. */
import { validateHeaderValue } from "node:http";
import type { Connector } from "../../connector/connector.ts";
import { showRef } from "../../connector/connector-ref.ts";
import type { ResponseHead, ResponseHeaders } from "../../upstream/http-client/http-exchange.ts";
import type { AdmittedRequest } from "../admitted.ts";
import { connectionTokens, type HeaderFields, hopByHop, pickResponseHeaders } from "../headers.ts";
import { badGateway, denied, errorCodeIn, type RegistryError } from "../registry-error.ts";
import { clientLink } from "./client-link.ts";
import { clientLocation } from "./client-location.ts";
import { showsCredential } from "./credential-search.ts";
import type { CollectedResponse, Hop, ResponseSink, UpstreamResponse } from "./exchange.ts";
import type { SessionSeal } from "./upload-session.ts";

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
  const { connector, response, method, report } = admitted;
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
}

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
  const found = errorCodeIn(body);
  const code = found === undefined || search.isIn(found) ? "" : ` ${found}`;
  const ref = showRef(connector);
  const hasLogin = connector.secretName !== undefined || connector.identity !== undefined;
  const isAnonymous = !hasLogin || authorization === undefined;
  const whom = isAnonymous
    ? `a request without a login${connector.name === "" ? "" : `, by the connector ${ref}`}`
    : `the account of the connector ${ref}`;
  return denied(`the registry ${connector.address.origin} answered ${status}${code} to ${whom}`, {
    detail: hasLogin
      ? "check what that account may do in this repository, and the connector's login (spec.auth)"
      : "the connector has no credential: set its spec.auth.secretRef, or give it an identity, unless the registry allows anonymous access",
  });
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
