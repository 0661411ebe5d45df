import { withoutBrackets } from "../connector/host-name.ts";
import { userAgent } from "../version.ts";
import type { HttpRequest, ResponseHead } from "./http-client/http-exchange.ts";
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

/** A longer body is not read to its end, and its connection is closed. */
const maxDroppedBytes = 64 * 1024;
/** Bodies whose Content-Length promises more than comes end after this. */
const dropTimeoutMs = 5_000;

/**
 * Fetches the head of a registry's response, and drops its body. Redirects are not followed.
 * @param url of the registry itself; {@link apiUrl} has it for a path
 * @throws UpstreamError where the registry can't be reached, or the signal aborts before its head has come
 * @example
 * const { status } = await fetchHead(upstream, apiUrl(upstream, ""), { authorization: undefined, signal });
 */
export async function fetchHead(
  upstream: Upstream,
  url: URL,
  { method = "GET", headers = {}, authorization, signal }: FetchHeadOptions,
): Promise<FetchedHead> {
  const ownHeaders = {
    "user-agent": userAgent,
    ...headers,
    ...(authorization === undefined ? {} : { authorization }),
  };
  try {
    return await sendForHead(upstream, { url, method, headers: ownHeaders }, signal);
  } catch (error) {
    const isConcealed = upstream.guard.isConcealed(withoutBrackets(url.hostname));
    throw unreachable(`the registry ${upstream.connector.address.origin}`, error, isConcealed);
  }
}

function sendForHead(
  { send }: Upstream,
  request: HttpRequest,
  signal: AbortSignal,
): Promise<FetchedHead> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    let head: ResponseHead | undefined;
    let droppedBytes = 0;
    let timer: NodeJS.Timeout | undefined;
    const settle = (error: Error): void => {
      signal.removeEventListener("abort", onAbort);
      clearTimeout(timer);
      if (head === undefined) reject(error);
      else resolve(head);
    };
    const abort = send(request, {
      onHead: (received) => {
        head = received;
        timer = setTimeout(() => abort(new Error("the body takes too long")), dropTimeoutMs);
      },
      onData(chunk, release) {
        droppedBytes += chunk.length;
        release();
        if (droppedBytes > maxDroppedBytes) abort(new Error("the body is too long to be dropped"));
      },
      onEnd: () => settle(new Error("no response")),
      onError: settle,
    });
    const onAbort = (): void => abort(asError(signal.reason));
    signal.addEventListener("abort", onAbort, { once: true });
  });
}

const asError = (reason: unknown): Error =>
  reason instanceof Error ? reason : new Error(String(reason));

/**
 * The URL of something in a registry's API.
 * @param path what follows `/v2/`, in its encoded form: `app/tags/list?n=1`
 */
export const apiUrl = ({ connector: { address } }: Upstream, path: string): URL =>
  new URL(`${address.origin}${address.basePath}/v2/${path}`);
