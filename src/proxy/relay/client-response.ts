import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import type { Connector } from "../../connector/connector.ts";
import { showRef } from "../../connector/connector-ref.ts";
import { property } from "../../connector/document.ts";
import type { RegistryAddress } from "../../connector/registry-address.ts";
import type { ResponseHead } from "../../upstream/http-client/http-exchange.ts";
import type { Admitted, Sealing } from "../admitted.ts";
import { connectionTokens, type Headers, hopByHop, pick, shows } from "../headers.ts";
import { badGateway, denied, type RegistryError } from "../registry-error.ts";
import { parameter } from "../request/query.ts";
import type { RepositoryTarget } from "../request/request-target.ts";
import type { CollectedResponse } from "./exchange.ts";
import type { FinalRequest } from "./replay.ts";
import { resolveUpstream, upstreamPath } from "./upstream-request.ts";

/** Seconds that an upload may rest between two requests. Every answer of it starts them anew. */
const sessionLifetime = 24 * 60 * 60;

/**
 * The registry's headers as the client gets them.
 * @throws RegistryError where the registry sends an upload to another host
 */
export function clientHeaders(
  admitted: Admitted,
  { status, headers }: ResponseHead,
  asked: FinalRequest,
  sealing: Sealing,
): Headers {
  const { target, connector } = admitted;
  const kept = asked.isStorage
    ? storageHeadersForClient(headers)
    : headersForClient(headers, asked.authorization);
  if (asked.digest !== undefined) kept["docker-content-digest"] ??= asked.digest;
  const link = [headers.link ?? []].flat().join(", ");
  const rewritten = link && clientLink(link, asked.url, target, connector.address);
  if (rewritten) kept.link = rewritten;
  const location =
    headers.location && locationFor(admitted, status, headers.location, asked, sealing);
  if (location) kept.location = location;
  return kept;
}

function locationFor(
  { target, connector, identity, method }: Admitted,
  status: number,
  text: string,
  asked: FinalRequest,
  { seal, now }: Sealing,
): string | undefined {
  const { address } = connector;
  const url = resolveUpstream(text, asked.url, address);
  if (url === undefined) throw badGateway("the registry sent a Location that is not a URL");
  if (!isUnderWay(method, status, target)) {
    return clientPath(url, target, address) ?? created(target);
  }
  if (url.origin !== address.origin) {
    throw badGateway(
      `the registry ${address.origin} directs the upload to ${url.origin}, which may not get the connector's credential`,
      {
        detail: "if that is the registry itself, its own address is set wrong (REGISTRY_HTTP_HOST)",
      },
    );
  }
  const sealed = seal.seal({
    url: url.href,
    connectorUid: connector.uid,
    repository: target.repository,
    subject: identity.subject,
    expires: Math.floor(now() / 1000) + sessionLifetime,
  });
  return `${target.prefix}${target.repository}/blobs/uploads/${sealed}`;
}

/** Whether an upload goes on after this answer. Some registries answer 201 to a chunk, too (Amazon's, jdx/mise#11376). */
function isUnderWay(method: string, status: number, target: RepositoryTarget): boolean {
  const { kind } = target.endpoint;
  if (kind !== "upload" && kind !== "uploads") return false;
  const ends = kind === "upload" ? method === "PUT" : created(target) !== undefined;
  return status !== 201 || !ends;
}

/** Where a thing is that was just made, for registries that name it in a way of their own. */
function created({ prefix, repository, endpoint, query }: RepositoryTarget): string | undefined {
  const digest = parameter(query, "digest") ?? parameter(query, "mount");
  if (endpoint.kind === "manifest") return `${prefix}${repository}/manifests/${endpoint.reference}`;
  return digest === undefined ? undefined : `${prefix}${repository}/blobs/${digest}`;
}

/**
 * Sends a collected response on as it is.
 * @throws RegistryError where the connector's own account is refused, or the body shows its credential
 */
export function respondCollected(
  admitted: Admitted,
  collected: CollectedResponse,
  asked: FinalRequest,
  sealing: Sealing,
): void {
  const { status, body } = collected;
  const { connector, response, method, request, report } = admitted;
  report.upstreamStatus = status;
  if (status === 401 || status === 403) throw refusedByRegistry(connector, collected);
  if (shows(body.toString("latin1"), asked.authorization)) {
    throw badGateway(
      `${asked.url.host} answered ${status} with the connector's credential in the response`,
    );
  }
  const headers = clientHeaders(admitted, collected, asked, sealing);
  // A HEAD's Content-Length is of the thing that was asked about; an error's may promise more than came.
  const length =
    method === "HEAD" || status === 204 ? {} : { "content-length": String(body.length) };
  response.writeHead(status, { ...headers, ...length });
  response.end(body);
  drain(request);
}

/** Sends a client on to the host where the registry keeps what it has asked for. */
export function respondWithRedirect(
  { response, report }: Admitted,
  { status, headers }: ResponseHead,
  { href }: URL,
): void {
  report.upstreamStatus = status;
  const kept = redirectHeadersForClient(headers);
  response.writeHead(status, { ...kept, location: href, "content-length": "0" }).end();
}

/** Time for a client that is still sending to notice the answer. */
const lingering = 10_000;

/** Reads on what a client still sends after its answer: a closed connection would make it lose the answer. */
export function drain(request: IncomingMessage): void {
  if (request.complete || request.destroyed) return;
  request.unpipe();
  request.resume();
  const { socket } = request;
  const timer = setTimeout(() => request.destroy(), lingering);
  const stop = (): void => {
    clearTimeout(timer);
    socket.off("close", stop);
  };
  request.once("close", stop);
  socket.once("close", stop); // after its answer, a request is not told that its client has gone
}

/**
 * The stored credential is at fault, not the client's: a 401 would make containerd ask five times and
 * others ask a person for a password. The registry's own words are not passed on, but for its error code.
 */
export function refusedByRegistry(
  connector: Connector,
  { status, body }: CollectedResponse,
): RegistryError {
  const code = upstreamCode(body);
  return denied(
    `the registry ${connector.address.origin} answered ${status}${code} to the account of the connector ${showRef(connector)}`,
    {
      detail:
        connector.secretName === undefined
          ? "the connector has no credential: set its spec.auth.secretRef, unless the registry allows anonymous access"
          : "check what that account may do in this repository, and the connector's Secret",
    },
  );
}

function upstreamCode(body: Buffer): string {
  try {
    const errors = property(JSON.parse(body.toString("utf8")), "errors");
    const code = Array.isArray(errors) ? property(errors[0], "code") : undefined;
    return typeof code === "string" && /^[A-Z_]{1,40}$/.test(code) ? ` ${code}` : "";
  } catch {
    return "";
  }
}

/**
 * What a client has to ask for a URL of the registry: a path in the form that the client used itself. Undefined for
 * anything outside the repository. Paths are always absolute and hosts never named, since clients
 * refuse other hosts or send their credential there (CVE-2026-50151).
 */
export function clientPath(
  url: URL,
  target: RepositoryTarget,
  address: RegistryAddress,
): string | undefined {
  const inside = upstreamPath(target, address);
  if (url.origin !== address.origin || !url.pathname.startsWith(inside)) return undefined;
  return `${clientPrefix(target)}${url.pathname.slice(inside.length)}${url.search}`;
}

const clientPrefix = ({ prefix, repository }: RepositoryTarget): string =>
  repository === "" ? prefix : `${prefix}${repository}/`;

/** A Link header (RFC 8288) with the paths of its targets as clients have to ask for them; undefined where one lies outside. */
export function clientLink(
  link: string,
  asked: URL,
  target: RepositoryTarget,
  address: RegistryAddress,
): string | undefined {
  let outside = false;
  const rewritten = link.replace(/<([^<>]*)>/g, (_whole, text: string) => {
    const url = resolveUpstream(text, asked, address);
    const path = url && (clientPath(url, target, address) ?? nextPage(url, asked, target, address));
    outside ||= path === undefined;
    return `<${path}>`;
  });
  return outside ? undefined : rewritten;
}

/**
 * The next page of the list that was asked for, which a registry may know under another host or without its base
 * path. It is the query that tells the page; without the Link, clients would take the list to end here.
 */
function nextPage(
  url: URL,
  asked: URL,
  target: RepositoryTarget,
  address: RegistryAddress,
): string | undefined {
  const path = asked.pathname.slice(address.basePath.length);
  if (url.search === "" || !url.pathname.endsWith(path)) return undefined;
  return clientPath(new URL(url.search, asked), target, address);
}

/** What a client must not hear of a registry: how to log in to it, and what is said to browsers of that host. */
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

/**
 * A registry's headers as the client gets them, but for Location and Link.
 * @param authorization what the registry was sent; a header that shows it is left out
 */
export function headersForClient(
  headers: IncomingHttpHeaders,
  authorization: string | undefined,
): Headers {
  const named = connectionTokens(headers.connection);
  return pick(
    headers,
    (name, value) =>
      !notForClients.has(name) && !named.has(name) && !shows(String(value), authorization),
  );
}

/** The same for a host that a registry redirected to. */
export const storageHeadersForClient = (headers: IncomingHttpHeaders): Headers =>
  pick(headers, (name) => fromStorage.has(name));

/** The same for a redirect that the client follows itself, but for its Location. */
export const redirectHeadersForClient = (headers: IncomingHttpHeaders): Headers =>
  pick(headers, (name) => fromRedirect.has(name));
