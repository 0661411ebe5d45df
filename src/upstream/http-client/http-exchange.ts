import type { IncomingHttpHeaders } from "node:http";

/** A request to a registry, a token server or a storage host, but for what belongs to the connection. */
export interface HttpRequest {
  readonly url: URL;
  readonly method: string;
  /** In lower case, and without those of RFC 9110, section 7.6.1, Host and Content-Length. */
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: Buffer | undefined;
  /** Milliseconds until the head of the answer has to be there. */
  readonly headersTimeoutMs: number;
}

/** The head of an answer. Headers that came several times are joined as node:http joins them. */
export interface ResponseHead {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
}

/** Is told of an answer while it comes: of its head, of its bytes, and of one of the two ends. */
export interface ResponseHandler {
  /** Of the final answer; what it throws is the end, and is told to `failed`. */
  onHead(head: ResponseHead): void;
  /**
   * The next bytes. They may be looked at until `release` is called, which has to be: the sender is
   * held back while two chunks or so are not released.
   */
  onData(chunk: Buffer, release: () => void): void;
  /** All of the body has come. */
  onEnd(): void;
  /** There is no answer, or not all of it. */
  onError(error: Error): void;
}

/** Ends an exchange at once, and its connection; its handler is told of the reason. Later it does nothing. */
export type Abort = (reason: Error) => void;

/** Sends a request. The handler is told of nothing before this has returned. */
export type SendRequest = (request: HttpRequest, handler: ResponseHandler) => Abort;
