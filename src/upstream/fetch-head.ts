import { userAgent } from "../version.ts";
import { fetchResponse } from "./fetch-response.ts";
import type { ResponseHead } from "./http-client/http-exchange.ts";
import type { Upstream } from "./upstream.ts";
import { unreachable } from "./upstream-error.ts";

export interface FetchHeadOptions {
  readonly method?: "GET" | "HEAD";
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  /** The Authorization header; undefined for a request without one. */
  readonly authorization: string | undefined;
  readonly signal: AbortSignal;
}

/** The head of a registry's response. */
export type FetchedHead = ResponseHead;

/**
 * Fetches the head of a registry's response, and drops its body. Redirects are not followed.
 * @param url of the registry itself; {@link apiUrl} has it for a path
 * @throws UpstreamError where the registry can't be reached, or the signal aborts before its head has come
 * @example
 * const { status } = await fetchHead(upstream, apiUrl(upstream, ""), { authorization: undefined, signal });
 */
export async function fetchHead(
  { send, guard, connector }: Upstream,
  url: URL,
  { method = "GET", headers = {}, authorization, signal }: FetchHeadOptions,
): Promise<FetchedHead> {
  const ownHeaders = {
    "user-agent": userAgent,
    ...headers,
    ...(authorization === undefined ? {} : { authorization }),
  };
  try {
    return await fetchResponse({ url, method, headers: ownHeaders }, { send, signal });
  } catch (error) {
    const isConcealed = guard.isConcealed(url);
    throw unreachable(`the registry ${connector.address.origin}`, error, isConcealed);
  }
}

/**
 * The URL of something in a registry's API.
 * @param path what follows `/v2/`, in its encoded form: `app/tags/list?n=1`
 */
export const apiUrl = ({ connector: { address } }: Upstream, path: string): URL =>
  new URL(`${address.origin}${address.basePath}/v2/${path}`);
