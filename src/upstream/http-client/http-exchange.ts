/** What passes between the HTTP/1.1 client of this folder and whoever sends by them: one request, and its response as events. */
import type { IncomingHttpHeaders } from "node:http";

/** A request of any HTTP server. What belongs to the connection is added by the client that sends it. */
export interface HttpRequest {
  readonly url: URL;
  readonly method: string;
  /** Names in lower case. Host, Content-Length and the headers of RFC 9110, section 7.6.1, are not among them. */
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: Buffer | undefined;
}

/**
 * The headers of a response, by names in lower case. Those that came several times are joined as node:http joins them, but
 * for WWW-Authenticate: a challenge has commas of its own, and one that can't be read would take the others along.
 */
export type ResponseHeaders = {
  [Name in keyof IncomingHttpHeaders]: Name extends "www-authenticate"
    ? string | string[] | undefined
    : IncomingHttpHeaders[Name];
};

/** The status and the headers of a response. */
export interface ResponseHead {
  readonly status: number;
  readonly headers: ResponseHeaders;
}

/**
 * Takes the events of one response: `onHead` once, `onData` for each piece of the body, and then either `onEnd` or
 * `onError`. `onError` may come at any time, without a head, too; nothing follows it.
 */
export interface ResponseHandler {
  /** The head of the final response has come. What this throws ends the exchange, and is handed to `onError`. */
  onHead(head: ResponseHead): void;
  /**
   * The next bytes of the body have come.
   * @param release has to be called once nobody looks at the chunk any more: its memory is used again. The sender is
   *   held back while about two chunks are not released.
   */
  onData(chunk: Buffer, release: () => void): void;
  /** All of the body has come. */
  onEnd(): void;
  /** There is no response, or not all of it. */
  onError(error: Error): void;
}

/**
 * Ends an exchange at once, and the connection with it. The handler's `onError` gets the reason. After the end of the
 * exchange it does nothing.
 */
export type Abort = (reason: Error) => void;

/**
 * Sends a request. The handler is not called before this has returned.
 * @throws TypeError where the request can't be written as HTTP/1.1
 * @example
 * const abort = send({ url, method: "GET", headers: {} }, handler);
 * response.once("close", () => abort(new Error("the client is gone")));
 */
export type SendRequest = (request: HttpRequest, handler: ResponseHandler) => Abort;

/**
 * A server closed a connection that it had answered on before, and did so just after a request was written and before a byte of
 * its response came: most likely it closed the connection before it could read the request (RFC 9112, section 9.3.1).
 */
export class StaleConnection extends Error {
  override readonly name = "StaleConnection";
  readonly code = "ECONNRESET";
}
