/** One request to a registry, or to a host that it redirects to, and its response. */
import type { ServerResponse } from "node:http";
import {
  type Abort,
  type ResponseHandler,
  type ResponseHead,
  StaleConnection,
} from "../../upstream/http-client/http-exchange.ts";
import { InvalidResponse } from "../../upstream/http-client/message-head.ts";
import { unreachable, wasClosed } from "../../upstream/upstream-error.ts";
import { BodyCut, ClientGone } from "../client-gone.ts";
import type { HeaderFields } from "../headers.ts";
import { RegistryError } from "../registry-error.ts";
import type { CredentialSearch } from "./credential-search.ts";
import { isForBlob, type UpstreamRequest } from "./upstream-request.ts";

/** Where a request is sent to: the registry, and then each host that a redirect leads to. */
export interface Hop {
  readonly url: URL;
  /** Whether it is another origin than the registry's own (`isOwnOrigin`). No credential goes there. */
  readonly isStorage: boolean;
  /** The digest that the registry named when it redirected; the storage does not know it. */
  readonly digest: string | undefined;
  /** The Authorization that is sent along. */
  readonly authorization: string | undefined;
  /** Finds the credentials that were sent for this client's request, there or to a hop before. */
  readonly search: CredentialSearch;
}

/** Takes a final response while it comes. */
export interface ResponseSink {
  /**
   * Takes the head of a response that is neither a redirect nor an error.
   * @returns whether the body is to follow; it is collected otherwise
   * @throws whatever then ends the exchange
   */
  begin(head: ResponseHead, hop: Hop): boolean;
  /**
   * Takes the next bytes of the body. `release` has to be called once their memory may be used again.
   * @throws RegistryError where no more is wanted; it ends the exchange
   */
  write(chunk: Buffer, release: () => void): void;
  /**
   * The body is complete. Nothing is returned where that is the end, too.
   * @throws BodyCut where it is not the content that was requested
   */
  end(): Promise<void> | undefined;
}

/**
 * What becomes of a response's body: it goes to the sink as it comes; it is collected, as those of errors are; or it is
 * discarded, as those of redirects are.
 */
export type BodyHandling = "stream" | "collect" | "discard";

/** A whole response; of its body, 64 KiB at most. */
export interface CollectedResponse extends ResponseHead {
  readonly body: Buffer;
}

/** The response to one hop. Its body is empty unless it was collected. */
export interface UpstreamResponse extends CollectedResponse {
  readonly handling: BodyHandling;
  readonly hop: Hop;
}

export interface ExchangeOptions {
  readonly request: UpstreamRequest;
  readonly hop: Hop;
  /** What is sent there in place of the request's own headers. */
  readonly headers: HeaderFields;
  readonly sink: ResponseSink;
  /** The client's response; when it is closed, the registry's request ends. */
  readonly response: ServerResponse;
}

/** Of a body that is not streamed, no more than this is read. */
export const maxCollectedBytes: number = 64 * 1024;
/** Error bodies whose Content-Length promises more than comes (docker-registry's 416) end after this. */
export const collectTimeoutMs = 5_000;

/**
 * Sends a request to one hop. A streamed body goes chunk by chunk to the sink, held back while the client is slower.
 * @throws ClientGone; BodyCut where a streamed body ends early; UpstreamError where no response comes; what the sink throws
 */
export async function exchange(options: ExchangeOptions): Promise<UpstreamResponse> {
  const { response } = options;
  try {
    return await exchangeOnce(options).catch((error: unknown) => {
      if (response.destroyed || !mayRepeat(options.request, error)) throw error;
      return exchangeOnce(options);
    });
  } catch (error) {
    const isKnown = error instanceof RegistryError || error instanceof BodyCut;
    if (response.destroyed || isKnown) throw error;
    const { request, hop } = options;
    const isConcealed = request.upstream.guard.isConcealed(hop.url);
    throw unreachable(nameOf(request, hop), error, isConcealed);
  }
}

/**
 * Whether a request is sent once more after the connection was closed without a response.
 *
 * A server may close a kept connection just when the next request is on its way (RFC 9112, section 9.3.1). It has hardly read
 * that request, so every request is sent again; if it has, a POST has begun an upload that nobody goes on with, or has mounted
 * a blob that is mounted once more, and neither does harm.
 *
 * Otherwise the request may have been served. What has the same effect when it is done twice (RFC 9110, section 9.2.2) is sent
 * again all the same: a read, a deletion, a manifest. A POST is not: a registry that fails over it would get it twice. Nor is
 * the end of an upload: a registry may hash a blob for longer than a load balancer waits, and would answer that it knows no
 * such upload (404), by which clients give up; after a 503 they begin the upload again.
 */
function mayRepeat({ method, body }: UpstreamRequest, error: unknown): boolean {
  if (error instanceof StaleConnection) return true;
  const isManifest = method === "PUT" && body !== undefined;
  const isIdempotent = isManifest || ["GET", "HEAD", "DELETE"].includes(method);
  return isIdempotent && !(error instanceof BodyCut) && wasClosed(error);
}

/** What a hop is called in an error: "the registry https://harbor.test". */
export function nameOf(
  request: UpstreamRequest,
  { url, isStorage }: Pick<Hop, "url" | "isStorage">,
): string {
  const { origin } = url;
  if (!isStorage) return `the registry ${origin}`;
  if (isForBlob(request)) return `the registry's storage ${origin}`;
  return `the host ${origin}, to which ${request.url.host} redirects,`;
}

function exchangeOnce(options: ExchangeOptions): Promise<UpstreamResponse> {
  const { request, hop, headers, response } = options;
  const { method, body, upstream } = request;
  return new Promise((resolve, reject) => {
    const handler = new Exchange(options, resolve, reject);
    handler.abort = upstream.send({ url: hop.url, method, headers, body }, handler);
    if (response.destroyed) handler.onClientClose();
    else response.once("close", handler.onClientClose);
  });
}

class Exchange implements ResponseHandler {
  readonly #options: ExchangeOptions;
  readonly #resolve: (response: UpstreamResponse) => void;
  readonly #reject: (error: Error) => void;
  abort: Abort = () => undefined;
  #head: ResponseHead | undefined;
  #handling: BodyHandling = "discard";
  #collected: Buffer[] = [];
  #bytes = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    options: ExchangeOptions,
    resolve: (response: UpstreamResponse) => void,
    reject: (error: Error) => void,
  ) {
    this.#options = options;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  readonly onClientClose = (): void =>
    this.abort(new ClientGone("the client closed the connection"));

  onHead(head: ResponseHead): void {
    this.#handling = this.#begin(head); // what it throws comes back through onError
    this.#head = head;
    if (this.#handling === "stream") return;
    this.#timer = setTimeout(() => this.abort(new BodyCut()), collectTimeoutMs);
  }

  #begin(head: ResponseHead): BodyHandling {
    if (isRedirect(head)) return "discard";
    const { sink, hop } = this.#options;
    return head.status < 400 && sink.begin(head, hop) ? "stream" : "collect";
  }

  onData(chunk: Buffer, release: () => void): void {
    if (this.#handling === "stream") {
      try {
        this.#options.sink.write(chunk, release);
      } catch (error) {
        release();
        this.abort(error as Error);
      }
      return;
    }
    const collected = chunk.subarray(0, Math.max(0, maxCollectedBytes - this.#bytes));
    if (this.#handling === "collect") this.#collected.push(Buffer.from(collected));
    this.#bytes += chunk.length;
    release();
    if (this.#bytes > maxCollectedBytes) this.abort(new BodyCut());
  }

  onEnd(): void {
    const ending = this.#handling === "stream" ? this.#options.sink.end() : undefined;
    if (ending === undefined) this.#settle();
    else
      ending.then(
        () => this.#settle(),
        (error: Error) => this.#settle(error),
      );
  }

  onError(error: Error): void {
    const isKnown =
      error instanceof ClientGone ||
      error instanceof RegistryError ||
      (error instanceof InvalidResponse && this.#handling === "stream");
    if (this.#head === undefined || isKnown) this.#settle(error);
    else if (this.#handling === "stream") {
      this.#settle(new BodyCut("the registry's response ended early", { cause: error }));
    } else this.#settle(); // the part of an error's body that came is passed on
  }

  #settle(error?: Error): void {
    const { response, hop } = this.#options;
    clearTimeout(this.#timer);
    response.off("close", this.onClientClose);
    if (error !== undefined || this.#head === undefined) {
      this.#reject(error ?? new Error("no response"));
      return;
    }
    const { status, headers } = this.#head;
    const body = Buffer.concat(this.#collected);
    this.#resolve({ status, headers, handling: this.#handling, body, hop });
  }
}

const isRedirect = ({ status, headers }: ResponseHead): boolean =>
  [301, 302, 303, 307, 308].includes(status) && headers.location !== undefined;
