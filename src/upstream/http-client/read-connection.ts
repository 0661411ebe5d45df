import type { Socket } from "node:net";
import { errors } from "undici";
import type { BufferBudget } from "./body-buffers.ts";
import { BodyReader } from "./body-reader.ts";
import { HeadReader } from "./head-reader.ts";
import type { HttpRequest, ResponseHandler } from "./http-exchange.ts";
import type { FramedResponseHead } from "./message-head.ts";

/** How a socket reads: `onread` of `net.connect` and `tls.connect`. */
export interface OnRead {
  readonly buffer: () => Buffer;
  readonly callback: (length: number, buffer: Uint8Array) => boolean;
}

export interface ReadConnectionOptions {
  /** Begins to connect, and calls `connected` once a request may be written: with TLS, once the other side has proved who it is. */
  readonly open: (onread: OnRead, connected: () => void) => Socket;
  readonly isTls: boolean;
  /** Bytes. */
  readonly maxHeaderBytes: number;
  /** Milliseconds, as those below. */
  readonly connectTimeoutMs: number;
  /** Without a byte. */
  readonly bodyTimeoutMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly budget: BufferBudget;
  readonly owner: ConnectionOwner;
}

/** Whoever keeps connections. */
export interface ConnectionOwner {
  /** Another request may be sent. */
  idle(connection: ReadConnection): void;
  /**
   * None may be, now or later.
   * @param isStale it had been used before, and was closed before it brought a byte
   */
  gone(connection: ReadConnection, isStale: boolean): void;
}

/** What is asked over a connection. */
export interface ReadTask {
  readonly request: Pick<HttpRequest, "method" | "headersTimeoutMs">;
  /** The whole head of the request. */
  readonly text: string;
  readonly handler: ResponseHandler;
  /** The answer is none that is read here; the connection is gone, and the handler has been told of nothing. */
  readonly unsupported: () => void;
}

/** Bytes are read here before it is known what they are, by all connections in turn: what is kept is copied. */
const scratch = Buffer.allocUnsafeSlow(64 * 1024);
const nothing = (): void => undefined;

/**
 * A connection for GET and HEAD, one at a time. Its socket reads into memory that is used again and again,
 * which carries more than twice as much as Node's streams; the price is that heads are parsed here.
 */
export class ReadConnection {
  readonly #options: ReadConnectionOptions;
  readonly #socket: Socket;
  readonly #connecting: NodeJS.Timeout;
  readonly #head: HeadReader;
  #state: "connecting" | "new" | "kept" | "gone" = "connecting";
  #task: ReadTask | undefined;
  /** When the head has to be there, as `performance.now` tells time. */
  #deadline = 0;
  /** Whether another request may follow this answer. */
  #persists = false;
  #body: BodyReader | undefined;

  constructor(options: ReadConnectionOptions) {
    this.#options = options;
    const { isTls, connectTimeoutMs, maxHeaderBytes } = options;
    this.#head = new HeadReader(maxHeaderBytes);
    const onread = {
      // TLS goes on handing over what it has decrypted after it was told to stop, which must not land in a buffer that is given away.
      buffer: () => (isTls ? scratch : (this.#body?.landing ?? scratch)),
      callback: (length: number, buffer: Uint8Array) => this.#read(length, buffer as Buffer),
    };
    const closed = (): void => this.destroy(new errors.SocketError("other side closed"));
    this.#socket = options
      .open(onread, () => this.#connected())
      .on("error", (error) => this.destroy(error))
      .on("end", closed)
      .on("close", closed)
      .on("timeout", () => this.#timedOut());
    const late = (): void => this.destroy(new errors.ConnectTimeoutError());
    this.#connecting = setTimeout(late, connectTimeoutMs);
  }

  /** Sends a request; there must be none under way. */
  begin(task: ReadTask): void {
    this.#task = task;
    if (this.#state !== "connecting") this.#send(task);
  }

  /** Ends the task and with it the connection, if it is the one under way. */
  abort(task: ReadTask, reason: Error): void {
    if (this.#task === task) this.destroy(reason);
  }

  /** Ends the connection; who waits for an answer is told why. */
  destroy(reason: Error): void {
    if (this.#state === "gone") return;
    const isUnanswered = this.#task !== undefined && this.#head.isEmpty && this.#body === undefined;
    const isStale = this.#state === "kept" && isUnanswered;
    const task = this.#forget();
    this.#options.owner.gone(this, isStale);
    task?.handler.onError(reason);
  }

  /** Ends the connection. @returns what was under way */
  #forget(): ReadTask | undefined {
    const task = this.#task;
    this.#state = "gone";
    this.#task = undefined;
    clearTimeout(this.#connecting);
    this.#body?.abandon();
    this.#body = undefined;
    this.#socket.destroy();
    return task;
  }

  #connected(): void {
    if (this.#state !== "connecting") return;
    clearTimeout(this.#connecting);
    this.#state = "new";
    if (this.#task !== undefined) this.#send(this.#task);
  }

  #send({ text, request }: ReadTask): void {
    this.#deadline = performance.now() + request.headersTimeoutMs;
    this.#socket.ref().setTimeout(request.headersTimeoutMs).write(text, "latin1");
  }

  /** @returns false where no more is to be read for now */
  #read(length: number, buffer: Buffer): boolean {
    const bytes = buffer.subarray(0, length);
    const task = this.#task;
    if (task === undefined)
      this.destroy(new errors.SocketError("received bytes without a request"));
    else if (this.#body === undefined) this.#readHead(task, bytes);
    else this.#readBody(task, this.#body, bytes, buffer);
    return !this.#body?.stops();
  }

  #readHead(task: ReadTask, bytes: Buffer): void {
    try {
      if (performance.now() > this.#deadline) throw new errors.HeadersTimeoutError(); // it comes byte by byte
      const read = this.#head.read(bytes, task.request.method);
      if (read?.head !== undefined) this.#answered(task, read.head, read.rest);
      else if (read !== undefined) this.#giveUp(task);
    } catch (error) {
      if (this.#task !== task) throw error; // it is over, and nobody would hear of it
      this.destroy(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #giveUp(task: ReadTask): void {
    this.#forget();
    this.#options.owner.gone(this, false);
    task.unsupported();
  }

  #answered(task: ReadTask, head: FramedResponseHead, rest: Buffer): void {
    const { length = 0, persists } = head;
    // To HEAD some send the body, too: the answer is good, and the connection is not.
    const isBodiless = head.length === undefined;
    this.#persists = persists && rest.length <= length;
    task.handler.onHead(head);
    if (this.#task !== task) return; // it was aborted
    if (rest.length > length && !isBodiless) this.#tooMuch();
    else if (isBodiless || length === 0) this.#finish(task);
    else if (rest.length === length) {
      task.handler.onData(Buffer.from(rest), nothing);
      this.#finish(task);
    } else this.#beginBody(task, length, rest);
  }

  #beginBody(task: ReadTask, length: number, rest: Buffer): void {
    const { budget, bodyTimeoutMs, isTls } = this.#options;
    const give = task.handler.onData.bind(task.handler);
    // What the client took is no time that the registry was silent.
    const resume = (): unknown => this.#socket.setTimeout(bodyTimeoutMs).resume();
    const body = new BodyReader({ length, budget, isCopied: isTls, give, resume });
    this.#body = body;
    this.#socket.setTimeout(bodyTimeoutMs);
    this.#readBody(task, body, rest, scratch);
  }

  #readBody(task: ReadTask, body: BodyReader, bytes: Buffer, from: Buffer): void {
    if (from === scratch) body.copy(bytes);
    else body.landed(bytes.length);
    // The next bytes land where these end.
    if (from === scratch && !this.#options.isTls) body.flush();
    if (body.left === 0) this.#finish(task);
    if (body.left < 0) this.#tooMuch();
  }

  #tooMuch(): void {
    this.destroy(new errors.ResponseContentLengthMismatchError());
  }

  #finish(task: ReadTask): void {
    this.#body?.flush();
    if (this.#task !== task) return; // it was aborted
    // TLS may have handed over the end after it was told to stop; the next answer must not wait for this client.
    if (this.#body?.isPaused) this.#socket.resume();
    this.#body?.close();
    this.#body = undefined;
    this.#task = undefined;
    const { owner, keepAliveTimeoutMs } = this.#options;
    if (this.#persists) {
      this.#state = "kept";
      this.#socket.unref().setTimeout(keepAliveTimeoutMs);
      owner.idle(this);
    } else {
      this.#forget();
      owner.gone(this, false);
    }
    task.handler.onEnd();
  }

  #timedOut(): void {
    if (this.#task === undefined) this.destroy(new errors.SocketError("idle"));
    else if (this.#body === undefined) this.destroy(new errors.HeadersTimeoutError());
    else if (!this.#body.isPaused) this.destroy(new errors.BodyTimeoutError());
    else this.#socket.setTimeout(this.#options.bodyTimeoutMs); // it is the client who takes its time
  }
}
