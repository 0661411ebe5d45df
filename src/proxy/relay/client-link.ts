/** A registry's Link header as the client gets it. */
import type { RegistryAddress } from "../../connector/registry-address.ts";
import { badGateway } from "../registry-error.ts";
import type { RepositoryTarget } from "../request/request-target.ts";
import { clientPath, clientPrefix } from "./client-location.ts";
import { isOwnOrigin, lastPart, resolveUpstream } from "./upstream-request.ts";

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
