import type { ServerResponse } from "node:http";
import type {
  Abort,
  HttpRequest,
  ResponseHandler,
  ResponseHead,
  SendRequest,
} from "../../upstream/http-client/http-exchange.ts";
import { BodyCut, ClientGone } from "../client-gone.ts";
import type { BodySink } from "./body-sink.ts";

/** What becomes of a response's body, decided at its head. */
export type BodyHandling = "stream" | "collect" | "discard";

export interface ExchangeOptions extends HttpRequest {
  readonly send: SendRequest;
  /** The client's response; when it is closed, the registry's request ends. */
  readonly response: ServerResponse;
  readonly sink: BodySink;
  /** Decides at the head; for `stream` it has written the head of the client's response. */
  readonly choose: (head: ResponseHead) => BodyHandling;
}

/** A whole response; of its body, 64 KiB at most. */
export interface CollectedResponse extends ResponseHead {
  readonly body: Buffer;
}

/** A response; its body is empty unless it was collected. */
export interface ExchangeResult extends CollectedResponse {
  readonly handling: BodyHandling;
  /** Of a streamed body. */
  readonly bytes: number;
}

/** What is read of a body that is not streamed. Bytes. */
export const maxCollectedBytes: number = 64 * 1024;
/** Error bodies whose Content-Length promises more than comes (docker-registry's 416) end after this. Milliseconds. */
export const collectTimeoutMs = 5_000;

/**
 * One request and its response. A streamed body goes chunk by chunk to the client, held back while
 * the client is slower.
 * @throws ClientGone, BodyCut, or the error of the connection where there is no head
 */
export function exchange(options: ExchangeOptions): Promise<ExchangeResult> {
  const { send: ask, response } = options;
  return new Promise((resolve, reject) => {
    const exchange = new Exchange(options, resolve, reject);
    exchange.abort = ask(options, exchange);
    if (response.destroyed) exchange.onClientClose();
    else response.once("close", exchange.onClientClose);
  });
}

class Exchange implements ResponseHandler {
  readonly #options: ExchangeOptions;
  readonly #resolve: (exchanged: ExchangeResult) => void;
  readonly #reject: (error: Error) => void;
  abort: Abort = () => undefined;
  #head: ResponseHead | undefined;
  #handling: BodyHandling = "discard";
  #collected: Buffer[] = [];
  #bytes = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    options: ExchangeOptions,
    resolve: (exchanged: ExchangeResult) => void,
    reject: (error: Error) => void,
  ) {
    this.#options = options;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  readonly onClientClose = (): void =>
    this.abort(new ClientGone("the client closed the connection"));

  head(head: ResponseHead): void {
    this.#handling = this.#options.choose(head); // what it throws comes back through failed
    this.#head = head;
    if (this.#handling === "stream") return;
    this.#timer = setTimeout(() => this.abort(new BodyCut()), collectTimeoutMs);
  }

  data(chunk: Buffer, release: () => void): void {
    this.#bytes += chunk.length;
    if (this.#handling === "stream") {
      this.#options.sink.write(chunk, release);
      return;
    }
    const isCollected = this.#handling === "collect" && this.#bytes <= maxCollectedBytes;
    if (isCollected) this.#collected.push(Buffer.from(chunk));
    release();
    if (this.#bytes > maxCollectedBytes) this.abort(new BodyCut());
  }

  ended(): void {
    const ending = this.#handling === "stream" ? this.#options.sink.end() : undefined;
    if (ending === undefined) this.#settle();
    else
      ending.then(
        () => this.#settle(),
        (error: Error) => this.#settle(error),
      );
  }

  failed(error: Error): void {
    if (this.#head === undefined || error instanceof ClientGone) this.#settle(error);
    else if (this.#handling === "stream") {
      this.#settle(new BodyCut("the registry's response ended early", { cause: error }));
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
