import type { IncomingHttpHeaders, ServerResponse } from "node:http";
import { TLSSocket } from "node:tls";
import type { Dispatcher } from "undici";
import type { Headers } from "./headers.ts";
import { writeAndFree } from "./write-and-free.ts";

/** The head of a registry's response. */
export interface ResponseHead {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
}

/** What becomes of a response's body, decided at its head. */
export type Handling = "stream" | "collect" | "discard";

export interface ExchangeOptions {
  readonly dispatcher: Dispatcher;
  readonly url: URL;
  readonly method: string;
  readonly headers: Headers;
  readonly body: Buffer | undefined;
  /** Milliseconds until the head has to be there. */
  readonly headersTimeout: number;
  /** The client's response: a streamed body goes there, and when it is closed the registry's request ends. */
  readonly response: ServerResponse;
  /** Decides at the head; for `stream` it has written the head of the client's response. */
  readonly choose: (head: ResponseHead) => Handling;
}

/** A whole response; of its body, 64 KiB at most. */
export interface CollectedResponse extends ResponseHead {
  readonly body: Buffer;
}

/** A response; its body is empty unless it was collected. */
export interface Exchanged extends CollectedResponse {
  readonly handling: Handling;
  /** Of a streamed body. */
  readonly bytes: number;
}

/** The client went away; nobody is left to tell. */
export class ClientGone extends Error {
  override readonly name = "ClientGone";
}

/** A body ended before its end; the client's connection is destroyed, so that it can't take it for a whole one. */
export class BodyCut extends Error {
  override readonly name = "BodyCut";
}

/** What is read of a body that is not streamed. Bytes. */
export const mostCollected: number = 64 * 1024;
/** Error bodies whose Content-Length promises more than comes (docker-registry's 416) end after this. Milliseconds. */
export const collectTimeout = 5_000;

/**
 * One request and its response. A streamed body goes chunk by chunk to the client, held back while
 * the client is slower.
 * @throws ClientGone, BodyCut, or the error of the connection where there is no head
 */
export function exchange(options: ExchangeOptions): Promise<Exchanged> {
  const { dispatcher, url, method, headers, body, headersTimeout, response } = options;
  return new Promise((resolve, reject) => {
    const handler = new ExchangeHandler(options, resolve, reject);
    response.once("close", handler.onClientClose);
    dispatcher.dispatch(
      {
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method,
        headers,
        body: body ?? null,
        headersTimeout,
      },
      handler,
    );
  });
}

class ExchangeHandler implements Dispatcher.DispatchHandler {
  readonly #options: ExchangeOptions;
  readonly #resolve: (exchanged: Exchanged) => void;
  readonly #reject: (error: Error) => void;
  #controller: Dispatcher.DispatchController | undefined;
  #head: ResponseHead | undefined;
  #handling: Handling = "discard";
  #collected: Buffer[] = [];
  #bytes = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    options: ExchangeOptions,
    resolve: (exchanged: Exchanged) => void,
    reject: (error: Error) => void,
  ) {
    this.#options = options;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  readonly onClientClose = (): void => {
    this.#controller?.abort(new ClientGone("the client closed the connection"));
  };

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#options.response.destroyed) this.onClientClose();
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
  ): void {
    if (status < 200) return; // informational: the response is still to come
    const head = { status, headers };
    this.#handling = this.#options.choose(head); // what it throws comes back through onResponseError
    this.#head = head;
    if (this.#handling === "stream") return;
    this.#timer = setTimeout(() => controller.abort(new BodyCut()), collectTimeout);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#bytes += chunk.length;
    if (this.#handling === "stream") {
      const { response } = this.#options;
      if (writeAndFree(response, chunk)) return;
      controller.pause();
      response.once("drain", () => controller.resume());
      return;
    }
    if (this.#handling === "collect" && this.#bytes <= mostCollected) this.#collected.push(chunk);
    if (this.#bytes > mostCollected) controller.abort(new BodyCut());
  }

  onResponseEnd(): void {
    if (this.#handling === "stream") this.#options.response.end();
    this.#settle();
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    const { response } = this.#options;
    if (this.#head === undefined || error instanceof ClientGone) this.#settle(error);
    else if (this.#handling === "stream") {
      cut(response);
      this.#settle(new BodyCut("the registry's answer ended before its end", { cause: error }));
    } else this.#settle(); // what came of an error's body is all there is to say
  }

  #settle(error?: Error): void {
    clearTimeout(this.#timer);
    this.#options.response.off("close", this.onClientClose);
    if (error !== undefined || this.#head === undefined) {
      this.#reject(error ?? new Error("no response"));
      return;
    }
    const body = Buffer.concat(this.#collected);
    this.#resolve({ ...this.#head, handling: this.#handling, body, bytes: this.#bytes });
  }
}

/**
 * Ends a response that is not whole. HTTP/1.0 takes the end of a connection for the end of a body, so there
 * it is reset; elsewhere it is not, since containerd goes on with Range only after a plain end.
 */
function cut(response: ServerResponse): void {
  const { socket, req } = response;
  if (req.httpVersion === "1.0" && !(socket instanceof TLSSocket)) socket?.resetAndDestroy();
  response.destroy();
}
