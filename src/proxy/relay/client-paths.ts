import { type RegistryAddress, upstreamRepository } from "../../connector/registry-address.ts";
import type { RepositoryTarget } from "../request/request-target.ts";

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
