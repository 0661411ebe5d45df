import type { HttpRequest, ResponseHead, SendRequest } from "./http-client/http-exchange.ts";
import { wasClosed } from "./upstream-error.ts";

export interface FetchOptions {
  readonly send: SendRequest;
  readonly signal: AbortSignal;
  /** How many bytes of a body are read: undefined where nobody wants it. Without this function no body is read. */
  readonly maxBodyBytes?: (head: ResponseHead) => number | undefined;
}

/** A response with its body, as far as it was wanted. */
export interface FetchedResponse extends ResponseHead {
  /** Undefined where nobody wanted the body, or it is longer than wanted. */
  readonly body: Buffer | undefined;
}

/** A longer body is not read to its end where nobody wants it, and its connection is closed. */
const maxDroppedBytes = 64 * 1024;
/** A body that nobody wants is waited for so long, so that its connection can be used again. */
const dropTimeoutMs = 1_000;

/**
 * Sends a request, and reads the body of its response where it is wanted. Redirects are not followed.
 * @throws what `send` hands to its handler, where no head comes, or not all of a body that is wanted; the signal's reason
 */
export async function fetchResponse(
  request: HttpRequest,
  options: FetchOptions,
): Promise<FetchedResponse> {
  try {
    return await fetchOnce(request, options);
  } catch (error) {
    // A server may close a kept connection just when the next request is on its way (RFC 9112, section 9.3.1).
    if (options.signal.aborted || !wasClosed(error)) throw error;
    return await fetchOnce(request, options);
  }
}

function fetchOnce(
  request: HttpRequest,
  { send, signal, maxBodyBytes }: FetchOptions,
): Promise<FetchedResponse> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    let head: ResponseHead | undefined;
    let wantedBytes: number | undefined;
    let chunks: Buffer[] | undefined;
    let bytes = 0;
    let timer: NodeJS.Timeout | undefined;
    const settle = (error?: Error): void => {
      signal.removeEventListener("abort", onAbort);
      clearTimeout(timer);
      if (head === undefined) reject(error ?? new Error("no response"));
      else if (chunks !== undefined && error !== undefined) reject(error);
      else resolve({ ...head, body: chunks && Buffer.concat(chunks) });
    };
    const abort = send(request, {
      onHead(received) {
        head = received;
        wantedBytes = maxBodyBytes?.(received);
        if (wantedBytes !== undefined) chunks = [];
        else timer = setTimeout(() => abort(new Error("the body takes too long")), dropTimeoutMs);
      },
      onData(chunk, release) {
        bytes += chunk.length;
        chunks?.push(Buffer.from(chunk));
        release();
        if (bytes <= (wantedBytes ?? maxDroppedBytes)) return;
        chunks = undefined;
        abort(new Error("the body is too long"));
      },
      onEnd: settle,
      onError: settle,
    });
    const onAbort = (): void => abort(asError(signal.reason));
    signal.addEventListener("abort", onAbort, { once: true });
  });
}

const asError = (reason: unknown): Error =>
  reason instanceof Error ? reason : new Error(String(reason));
