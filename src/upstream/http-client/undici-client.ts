import type { IncomingHttpHeaders } from "node:http";
import type { Dispatcher } from "undici";
import { freeMemory } from "./body-buffers.ts";
import type { ResponseHandler, SendRequest } from "./http-exchange.ts";
import { addHeader } from "./message-head.ts";

/** What may be given away at a time, about. Bytes. */
const maxUnreleased = 64 * 1024;

/** Asks by way of undici, which sends any method and reads any answer. */
export const createUndiciSender =
  (dispatcher: Dispatcher): SendRequest =>
  ({ url, method, headers, body = null, headersTimeoutMs }, handler) => {
    const reader = new UndiciResponseHandler(handler);
    const path = `${url.pathname}${url.search}`;
    const own = { ...headers } as Record<string, string | string[]>;
    dispatcher.dispatch(
      { origin: url.origin, path, method, headers: own, body, headersTimeout: headersTimeoutMs },
      reader,
    );
    return reader.abort;
  };

class UndiciResponseHandler implements Dispatcher.DispatchHandler {
  readonly #handler: ResponseHandler;
  #controller: Dispatcher.DispatchController | undefined;
  #aborted: Error | undefined;
  #given = 0;

  constructor(handler: ResponseHandler) {
    this.#handler = handler;
  }

  readonly abort = (reason: Error): void => {
    this.#aborted ??= reason;
    this.#controller?.abort(this.#aborted);
  };

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#aborted !== undefined) controller.abort(this.#aborted);
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
  ): void {
    if (status < 200) return; // informational: the response is still to come
    this.#handler.onHead({ status, headers: asNode(headers) }); // what it throws comes back through onResponseError
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    const { length } = chunk;
    this.#given += length;
    this.#handler.onData(chunk, () => {
      freeMemory(chunk);
      this.#given -= length;
      if (this.#given === 0) controller.resume();
    });
    if (this.#given >= maxUnreleased) controller.pause();
  }

  onResponseEnd(): void {
    this.#handler.onEnd();
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#handler.onError(error);
  }
}

/** undici gives a list for every header that came several times. */
function asNode(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  if (!Object.values(headers).some(Array.isArray)) return headers;
  const joined: IncomingHttpHeaders = {};
  for (const [name, values] of Object.entries(headers)) {
    for (const value of [values ?? []].flat()) addHeader(joined, name, value);
  }
  return joined;
}
