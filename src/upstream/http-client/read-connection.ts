import type { Socket } from "node:net";
import type { BufferBudget } from "./body-buffers.ts";
import { BodyReader } from "./body-reader.ts";
import { ChunkReader } from "./chunk-reader.ts";
import { ConnectionError } from "./connection-error.ts";
import { HeadReader } from "./head-reader.ts";
import {
  type HttpRequest,
  type ResponseHandler,
  type ResponseHead,
  StaleConnection,
} from "./http-exchange.ts";
import type { FramedResponseHead } from "./message-head.ts";

/** How a socket reads into memory of ours: the option `onread` of `net.connect` and `tls.connect`. */
export interface OnRead {
  readonly buffer: () => Buffer;
  readonly callback: (length: number, buffer: Uint8Array) => boolean;
}

/** A connection on which requests may be written. */
export interface OpenConnection {
  readonly socket: Socket;
  /** Writes the head of a request as a company's proxy takes it, which passes it on; undefined where there is none in between. */
  readonly inAbsoluteForm?: (headText: string) => string;
  /** Looks at a head before anybody else does. What it throws ends the exchange. */
  readonly checkHead?: (head: ResponseHead) => void;
}

export interface ReadConnectionOptions {
  /**
   * Opens the connection, until a request may be written.
   * @param signal ends that
   */
  readonly open: (onread: OnRead, signal: AbortSignal) => Promise<OpenConnection>;
  readonly isTls: boolean;
  /** Of the head of a response. */
  readonly maxHeaderBytes: number;
  /** From when a request may be written until the head of the response is whole. */
  readonly headersTimeoutMs: number;
  /** Without a byte of the body; the time in which the consumer holds it back does not count. */
  readonly bodyTimeoutMs: number;
  /** Without a request. */
  readonly keepAliveTimeoutMs: number;
  readonly budget: BufferBudget;
  readonly owner: ConnectionOwner;
}

/** Whoever keeps connections, and hears what becomes of them. */
export interface ConnectionOwner {
  /** The response is whole, and another request may be sent. */
  onIdle(connection: ReadConnection): void;
  /**
   * The connection has ended.
   * @param isStale whether it had been used before, and the server closed it before a byte of the response came
   */
  onGone(connection: ReadConnection, isStale: boolean): void;
}

/** A request that a connection sends, and what becomes of its response. */
export interface ReadTask {
  readonly request: Pick<HttpRequest, "method" | "body">;
  /** The whole head of the request, in latin1. */
  readonly headText: string;
  readonly handler: ResponseHandler;
}

/** All connections read heads into this buffer, in turn. What is kept of it is copied. */
const scratch = Buffer.allocUnsafeSlow(64 * 1024);
/**
 * A server that closes a kept connection while a request is on its way does so within this time after the request was written.
 * What takes longer is a server, or something before it, that gave up while the request was served.
 */
const staleWithinMs = 2_000;
const doNothing = (): void => undefined;

/**
 * A connection that sends one request at a time. Its socket reads into memory that is used again and again,
 * which carries more than twice as much as Node's streams; the price is that heads are parsed here.
 */
export class ReadConnection {
  readonly #options: ReadConnectionOptions;
  readonly #dialling = new AbortController();
  /** Undefined while there is no connection yet. */
  #open: OpenConnection | undefined;
  readonly #headReader: HeadReader;
  #state: "connecting" | "new" | "kept" | "gone" = "connecting";
  #task: ReadTask | undefined;
  /** When the last request was written, by the clock of `performance.now`. */
  #sentAt = 0;
  /** When the head has to be there, by the clock of `performance.now`. */
  #headDeadline = 0;
  /** Whether another request may follow this response. */
  #persists = false;
  #body: BodyReader | undefined;
  /** Takes the chunks of the body apart, where it comes in chunks. */
  #chunks: ChunkReader | undefined;

  constructor(options: ReadConnectionOptions) {
    this.#options = options;
    this.#headReader = new HeadReader(options.maxHeaderBytes);
    const onread = {
      // TLS goes on handing over what it has decrypted after it was told to stop. That must not go into a buffer of which the consumer still reads.
      buffer: () => (this.#isCopied ? scratch : (this.#body?.readBuffer ?? scratch)),
      callback: (length: number, buffer: Uint8Array) => this.#read(length, buffer as Buffer),
    };
    options.open(onread, this.#dialling.signal).then(
      (open) => this.#onOpen(open),
      (error) => this.destroy(error),
    );
  }

  /** Whether bodies are copied out of the buffer that the socket reads into. */
  get #isCopied(): boolean {
    return this.#options.isTls || this.#chunks !== undefined;
  }

  /** Sends a request; there must be none under way. */
  begin(task: ReadTask): void {
    this.#task = task;
    if (this.#open !== undefined) this.#send(task, this.#open);
  }

  /** Ends the connection, if this is the task under way. Its handler gets the reason. */
  abort(task: ReadTask, reason: Error): void {
    if (this.#task === task) this.destroy(reason);
  }

  /** Ends the connection. The handler of a task under way gets the reason. */
  destroy(reason: Error): void {
    if (this.#state === "gone") return;
    const isStale = this.#isStale;
    const task = this.#close();
    this.#options.owner.onGone(this, isStale);
    task?.handler.onError(reason);
  }

  /** Whether the connection was used before, and nothing of the response to the request under way has come. */
  get #isStale(): boolean {
    const isUnanswered =
      this.#task !== undefined && this.#headReader.isEmpty && this.#body === undefined;
    return this.#state === "kept" && isUnanswered;
  }

  /** The socket has failed, or its other side has closed it. */
  #onLost(error: Error): void {
    const isSoon = performance.now() - this.#sentAt < staleWithinMs;
    this.destroy(
      this.#isStale && isSoon
        ? new StaleConnection("the server had closed the connection", { cause: error })
        : error,
    );
  }

  /**
   * Ends the connection, and calls nobody.
   * @returns the task that was under way
   */
  #close(): ReadTask | undefined {
    const task = this.#task;
    this.#state = "gone";
    this.#task = undefined;
    this.#body?.abandon();
    this.#body = undefined;
    this.#chunks = undefined;
    this.#dialling.abort();
    this.#open?.socket.destroy();
    return task;
  }

  /** The server sends no more. That is the end of a body whose head has said nothing of it (RFC 9112, section 6.3). */
  #onServerEnd(onClose: () => void): void {
    const isEndOfBody = this.#body?.remainingBytes === Number.POSITIVE_INFINITY;
    if (this.#task !== undefined && isEndOfBody && this.#chunks === undefined) {
      this.#finish(this.#task);
    } else onClose();
  }

  #onOpen(open: OpenConnection): void {
    if (this.#state !== "connecting") {
      open.socket.destroy();
      return;
    }
    const onClose = (): void => this.#onLost(new ConnectionError("CONNECTION_CLOSED"));
    open.socket
      .on("error", (error) => this.#onLost(error))
      .on("end", () => this.#onServerEnd(onClose))
      .on("close", onClose)
      .on("timeout", () => this.#onTimeout());
    this.#open = open;
    this.#state = "new";
    if (this.#task !== undefined) this.#send(this.#task, open);
  }

  #send({ headText, request }: ReadTask, { socket, inAbsoluteForm }: OpenConnection): void {
    const { headersTimeoutMs } = this.#options;
    this.#sentAt = performance.now();
    this.#headDeadline = this.#sentAt + headersTimeoutMs;
    const text = inAbsoluteForm === undefined ? headText : inAbsoluteForm(headText);
    socket.ref().setTimeout(headersTimeoutMs).write(text, "latin1");
    if (request.body !== undefined) socket.write(request.body);
  }

  /** @returns false where no more is to be read for now */
  #read(length: number, buffer: Buffer): boolean {
    const bytes = buffer.subarray(0, length);
    const task = this.#task;
    if (task === undefined) this.destroy(new ConnectionError("UNWANTED_BYTES"));
    else if (this.#body === undefined) this.#readHead(task, bytes);
    else this.#readBody(task, this.#body, bytes, buffer);
    return !this.#body?.pauseIfFull();
  }

  #readHead(task: ReadTask, bytes: Buffer): void {
    this.#failWithTask(task, () => {
      if (performance.now() > this.#headDeadline) throw new ConnectionError("HEADERS_TIMEOUT"); // it comes byte by byte
      const read = this.#headReader.read(bytes, task.request.method);
      if (read !== undefined) this.#onHead(task, read.head, read.rest);
    });
  }

  /** Ends the connection where an action throws. The task's handler gets the error. */
  #failWithTask(task: ReadTask, action: () => void): void {
    try {
      action();
    } catch (error) {
      if (this.#task !== task) throw error; // the task has ended, so its handler would not get the error
      this.destroy(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #onHead(task: ReadTask, head: FramedResponseHead, rest: Buffer): void {
    const { bodyBytes = 0, persists, isChunked } = head;
    // Some servers send a body to HEAD, too. The response is good then, and the connection can't be used again.
    const isBodiless = head.bodyBytes === undefined;
    this.#persists = persists && rest.length <= bodyBytes;
    this.#open?.checkHead?.(head);
    task.handler.onHead(head);
    if (this.#task !== task) return; // it was aborted
    if (isChunked) this.#beginChunks(task, rest);
    else if (rest.length > bodyBytes && !isBodiless) this.#failTooLong();
    else if (isBodiless || bodyBytes === 0) this.#finish(task);
    else if (rest.length === bodyBytes) {
      task.handler.onData(Buffer.from(rest), doNothing);
      this.#finish(task);
    } else this.#beginBody(task, bodyBytes, rest);
  }

  /** @throws InvalidResponse */
  #beginChunks(task: ReadTask, rest: Buffer): void {
    const chunks = new ChunkReader();
    const pieces: Buffer[] = [];
    const behind = chunks.read(rest, (piece) => pieces.push(piece));
    const begin = Buffer.concat(pieces);
    if (behind === undefined) {
      this.#chunks = chunks;
      this.#beginBody(task, Number.POSITIVE_INFINITY, begin);
      return;
    }
    // Much of what comes in chunks is small, and needs none of the buffers of a long body.
    if (begin.length > 0) task.handler.onData(begin, doNothing);
    this.#finishChunks(task, behind);
  }

  #beginBody(task: ReadTask, lengthBytes: number, begin: Buffer): void {
    const { budget, bodyTimeoutMs } = this.#options;
    const onChunk = task.handler.onData.bind(task.handler);
    // The time that the consumer took is no silence of the server.
    const resume = (): unknown => this.#open?.socket.setTimeout(bodyTimeoutMs).resume();
    const isCopied = this.#isCopied;
    this.#body = new BodyReader({ lengthBytes, budget, isCopied, onChunk, resume });
    this.#open?.socket.setTimeout(bodyTimeoutMs);
    this.#body.append(begin);
    // The socket fills a buffer from its beginning, so what was copied has to be handed over first.
    if (!isCopied) this.#body.flush();
  }

  #readBody(task: ReadTask, body: BodyReader, bytes: Buffer, from: Buffer): void {
    const chunks = this.#chunks;
    if (chunks !== undefined) {
      this.#failWithTask(task, () => this.#readChunks(task, body, chunks, bytes));
      return;
    }
    if (from === scratch) body.append(bytes);
    else body.filled(bytes.length);
    // A plain socket has read this into the common buffer, before it was told to read into one of the body's.
    if (from === scratch && !this.#options.isTls) body.flush();
    if (body.remainingBytes === 0) this.#finish(task);
    if (body.remainingBytes < 0) this.#failTooLong();
  }

  /** @throws InvalidResponse */
  #readChunks(task: ReadTask, body: BodyReader, chunks: ChunkReader, bytes: Buffer): void {
    const behind = chunks.read(bytes, (piece) => body.append(piece));
    if (behind !== undefined && this.#task === task) this.#finishChunks(task, behind);
  }

  /** @param behind what came behind the last chunk: nobody knows what it is, so the connection is not used again */
  #finishChunks(task: ReadTask, behind: Buffer): void {
    if (this.#task !== task) return; // it was aborted
    if (behind.length > 0) this.#persists = false;
    this.#finish(task);
  }

  #failTooLong(): void {
    this.destroy(new ConnectionError("LENGTH_MISMATCH"));
  }

  #finish(task: ReadTask): void {
    this.#body?.flush();
    if (this.#task !== task) return; // it was aborted
    // TLS may have handed over the end after it was told to stop. The next response must not wait for this consumer.
    if (this.#body?.isPaused) this.#open?.socket.resume();
    this.#body?.close();
    this.#body = undefined;
    this.#chunks = undefined;
    this.#task = undefined;
    const { owner, keepAliveTimeoutMs } = this.#options;
    // A server that responds before it has the whole request does not want the rest of it.
    const socket = this.#open?.socket;
    if (this.#persists && socket?.writableLength === 0) {
      this.#state = "kept";
      socket.unref().setTimeout(keepAliveTimeoutMs);
      owner.onIdle(this);
    } else {
      this.#close();
      owner.onGone(this, false);
    }
    task.handler.onEnd();
  }

  #onTimeout(): void {
    if (this.#task === undefined) this.destroy(new ConnectionError("IDLE"));
    else if (this.#body === undefined) this.destroy(new ConnectionError("HEADERS_TIMEOUT"));
    else if (!this.#body.isPaused) this.destroy(new ConnectionError("BODY_TIMEOUT"));
    else this.#open?.socket.setTimeout(this.#options.bodyTimeoutMs); // it is the consumer who takes its time
  }
}
