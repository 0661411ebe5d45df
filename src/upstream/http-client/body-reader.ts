import { BodyBuffers, type BufferBudget } from "./body-buffers.ts";

export interface BodyReaderOptions {
  /** Bytes of the body, as its head has promised; `Infinity` where somebody else counts them. */
  readonly lengthBytes: number;
  readonly budget: BufferBudget;
  /** Whether the bytes come by {@link BodyReader.append} and not by way of {@link BodyReader.readBuffer}. */
  readonly isCopied: boolean;
  /** Takes a chunk. Its memory must not be looked at any more once `release` is called. */
  readonly onChunk: (chunk: Buffer, release: () => void) => void;
  /** Lets the socket read again, after {@link BodyReader.pauseIfFull} has told it to stop. */
  readonly resume: () => void;
}

/** TLS brings 64 KiB at a time at most, and what is copied should still be in a cache of the CPU when it is written. */
const maxCopiedBytes = 256 * 1024;

/** Brings a body from a socket to its consumer: counts its bytes, and pauses the socket while the consumer is slower. */
export class BodyReader {
  readonly #buffers: BodyBuffers;
  readonly #resume: () => void;
  #remainingBytes: number;
  #isPaused = false;
  #willFlush = false;

  constructor({ lengthBytes, budget, isCopied, onChunk, resume }: BodyReaderOptions) {
    this.#remainingBytes = lengthBytes;
    this.#resume = resume;
    const consumer = { onChunk, onRoom: () => this.#continue() };
    this.#buffers = new BodyBuffers(budget, consumer, isCopied ? maxCopiedBytes : undefined);
  }

  /** The buffer that the socket may read the next bytes into, unless it is paused. */
  get readBuffer(): Buffer {
    return this.#buffers.readBuffer;
  }

  /** Bytes that have still to come; negative where there were more than promised. */
  get remainingBytes(): number {
    return this.#remainingBytes;
  }

  /** Whether the socket is paused, since the consumer is slower. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** The socket has read so many bytes into `readBuffer`. */
  filled(bytes: number): void {
    if (this.#count(bytes)) this.#buffers.filled(bytes);
  }

  /** Copies bytes, and hands them over together with what else comes in the same turn of the event loop. */
  append(bytes: Buffer): void {
    if (!this.#count(bytes.length)) return;
    this.#buffers.append(bytes);
    if (this.#willFlush) return;
    this.#willFlush = true;
    setImmediate(() => {
      this.#willFlush = false;
      if (!this.#buffers.isFull) this.flush();
    });
  }

  /** Hands the consumer what has come and was not handed over yet. */
  flush(): void {
    this.#buffers.flush();
  }

  /** @returns whether the socket has to stop reading; `resume` is called when it may go on */
  pauseIfFull(): boolean {
    this.#isPaused = this.#buffers.isFull;
    return this.#isPaused;
  }

  /** The body is whole. The socket must not read into `readBuffer` any more. */
  close(): void {
    this.#isPaused = false;
    this.#buffers.close();
  }

  /** The body has failed, or nobody wants the rest of it. */
  abandon(): void {
    this.#buffers.abandon();
  }

  /** @returns false where there are more bytes than promised */
  #count(bytes: number): boolean {
    this.#remainingBytes -= bytes;
    return this.#remainingBytes >= 0;
  }

  #continue(): void {
    this.flush();
    if (!this.#isPaused || this.#buffers.isFull) return;
    this.#isPaused = false;
    this.#resume();
  }
}
