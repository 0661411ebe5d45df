import type { IncomingHttpHeaders } from "node:http";
import type { Dispatcher } from "undici";
import { freeMemory } from "./body-buffers.ts";
import type { ResponseHandler, SendRequest } from "./http-exchange.ts";
import { addHeader } from "./message-head.ts";

/** A body is paused while about so many bytes of it are not released. */
const maxUnreleasedBytes = 64 * 1024;

/** Makes a client that sends by undici: any method, with a body or without, and any response that HTTP/1.1 allows. */
export const createUndiciSender =
  (dispatcher: Dispatcher): SendRequest =>
  ({ url, method, headers, body = null, headersTimeoutMs }, handler) => {
    const adapter = new UndiciResponseHandler(handler);
    const path = `${url.pathname}${url.search}`;
    const ownHeaders = { ...headers } as Record<string, string | string[]>;
    dispatcher.dispatch(
      {
        origin: url.origin,
        path,
        method,
        headers: ownHeaders,
        body,
        headersTimeout: headersTimeoutMs,
      },
      adapter,
    );
    return adapter.abort;
  };

/** Hands the events of a response, as undici names them, to a {@link ResponseHandler}. */
class UndiciResponseHandler implements Dispatcher.DispatchHandler {
  readonly #handler: ResponseHandler;
  #controller: Dispatcher.DispatchController | undefined;
  #abortReason: Error | undefined;
  #unreleasedBytes = 0;

  constructor(handler: ResponseHandler) {
    this.#handler = handler;
  }

  readonly abort = (reason: Error): void => {
    this.#abortReason ??= reason;
    this.#controller?.abort(this.#abortReason);
  };

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#abortReason !== undefined) controller.abort(this.#abortReason);
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
  ): void {
    if (status < 200) return; // informational: the response is still to come
    this.#handler.onHead({ status, headers: joinHeaders(headers) }); // what it throws comes back through onResponseError
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    const { length } = chunk;
    this.#unreleasedBytes += length;
    this.#handler.onData(chunk, () => {
      freeMemory(chunk);
      this.#unreleasedBytes -= length;
      if (this.#unreleasedBytes === 0) controller.resume();
    });
    if (this.#unreleasedBytes >= maxUnreleasedBytes) controller.pause();
  }

  onResponseEnd(): void {
    this.#handler.onEnd();
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#handler.onError(error);
  }
}

/** Joins the values of headers that came several times as node:http does. undici has a list for each of them. */
function joinHeaders(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  if (!Object.values(headers).some(Array.isArray)) return headers;
  const joined: IncomingHttpHeaders = {};
  for (const [name, values] of Object.entries(headers)) {
    for (const value of [values ?? []].flat()) addHeader(joined, name, value);
  }
  return joined;
}
