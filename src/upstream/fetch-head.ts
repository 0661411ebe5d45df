import { request } from "undici";
import { withoutBrackets } from "../connector/host-name.ts";
import { userAgent } from "../version.ts";
import type { Upstream } from "./upstream.ts";
import { UpstreamError, unreachable } from "./upstream-error.ts";

export interface FetchHeadOptions {
  readonly method?: "GET" | "HEAD";
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  /** The Authorization header; undefined for a request without one. */
  readonly authorization: string | undefined;
  readonly signal: AbortSignal;
}

/** The head of a registry's response. */
export interface FetchedHead {
  readonly status: number;
  /** Names in lower case. A header that came several times is a list, so that each challenge can be read by itself. */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

/** A longer body is not read to its end, and its connection is closed. */
const maxDroppedBytes = 64 * 1024;

/**
 * Fetches the head of a registry's response, and drops its body. Redirects are not followed.
 * @param url of the registry itself; {@link apiUrl} has it for a path
 * @throws UpstreamError where the registry can't be reached, or the signal aborts before its head has come
 * @example
 * const { status } = await fetchHead(upstream, apiUrl(upstream, ""), { authorization: undefined, signal });
 */
export async function fetchHead(
  { connector, dispatcher, guard }: Upstream,
  url: URL,
  { method = "GET", headers = {}, authorization, signal }: FetchHeadOptions,
): Promise<FetchedHead> {
  const host = guard.checkHost(withoutBrackets(url.hostname));
  if (!host.ok) throw new UpstreamError("AddressRefused", host.reason);
  try {
    const response = await request(url, {
      method,
      dispatcher,
      signal,
      headers: {
        "user-agent": userAgent,
        ...headers,
        ...(authorization === undefined ? {} : { authorization }),
      },
    });
    await response.body.dump({ limit: maxDroppedBytes });
    return { status: response.statusCode, headers: response.headers };
  } catch (error) {
    throw unreachable(`the registry ${connector.address.origin}`, error);
  }
}

/**
 * The URL of something in a registry's API.
 * @param path what follows `/v2/`, in its encoded form: `app/tags/list?n=1`
 */
export const apiUrl = ({ connector: { address } }: Upstream, path: string): URL =>
  new URL(`${address.origin}${address.basePath}/v2/${path}`);
