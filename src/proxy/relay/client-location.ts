/** Where a registry's Location leads, as the client has to request it. */
import { randomUUID } from "node:crypto";
import { TLSSocket } from "node:tls";
import type { RegistryAddress } from "../../connector/registry-address.ts";
import type { AdmittedRequest } from "../admitted.ts";
import { badGateway } from "../registry-error.ts";
import { maxQueryBytes, parameter } from "../request/query.ts";
import { type RepositoryTarget, stateParameter } from "../request/request-target.ts";
import { showsCredential } from "./credential-search.ts";
import type { Hop } from "./exchange.ts";
import type { SessionSeal } from "./upload-session.ts";
import { isOwnOrigin, resolveRedirect, resolveUpstream, upstreamPath } from "./upstream-request.ts";

/**
 * A Location as the client gets it: a path of this proxy. For an upload that goes on, the registry's URL is sealed in its query,
 * and it is absolute where the registry's was, so that it looks as with the registry itself.
 * @returns undefined where a Location outside of the repository says nothing that the client could use
 * @throws RegistryError 502 where it is no URL, or leads an upload to another host or by a query that is too long
 */
export function clientLocation(
  admitted: AdmittedRequest,
  status: number,
  location: string,
  hop: Hop,
  seal: SessionSeal,
): string | undefined {
  const { target, connector, identity, method } = admitted;
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
  const path = `${target.prefix}${target.repository}/blobs/uploads/${uploadId(target)}`;
  const origin = isAbsolute.test(location) ? clientOrigin(admitted) : "";
  return `${origin}${path}?${stateParameter}=${session}`;
}

const isAbsolute = /^\s*(?:[a-z][a-z0-9+.-]*:|\/\/)/i;

/** What the URL of an upload calls it, from its begin to its end. It is none of the registry's own names, and says nothing. */
const uploadId = ({ endpoint }: RepositoryTarget): string =>
  (endpoint.kind === "upload" ? endpoint.id : undefined) ?? randomUUID();

/** Scheme, host and port by which the client calls this proxy, or the registry in forward mode; empty where it sends no Host. */
function clientOrigin({ isForward, connector, request }: AdmittedRequest): string {
  if (isForward) return connector.address.origin;
  const { host = "" } = request.headers;
  if (host === "") return "";
  return `${request.socket instanceof TLSSocket ? "https" : "http"}://${host}`;
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
 * anything outside the repository. It names no host, since clients refuse other hosts or send their credential there
 * (CVE-2026-50151).
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

/** What the paths of a repository begin with, or those of the catalog, as the client calls them. */
export const clientPrefix = ({ prefix, repository }: RepositoryTarget): string =>
  repository === "" ? prefix : `${prefix}${repository}/`;
