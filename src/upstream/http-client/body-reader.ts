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

/**
 * Brings a body from a socket to its consumer: counts its bytes, and pauses the socket while the consumer is slower, or
 * others have their turn.
 */
export class BodyReader {
  readonly #buffers: BodyBuffers;
  readonly #resume: () => void;
  readonly #budget: BufferBudget;
  #remainingBytes: number;
  #isPaused = false;
  #willFlush = false;
  /** Whether it waits for its turn in a later round of the event loop. */
  #isWaiting = false;

  constructor({ lengthBytes, budget, isCopied, onChunk, resume }: BodyReaderOptions) {
    this.#budget = budget;
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

  /** Whether the socket is paused. */
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
    this.#isPaused = this.#buffers.isFull || this.#isWaiting;
    return this.#isPaused;
  }

  /** The body is whole. The socket must not read into `readBuffer` any more. */
  close(): void {
    this.#isPaused = false;
    this.#buffers.close();
  }

  /** The body has failed, or nobody wants the rest of it. */
  abandon(): void {
    this.#isPaused = false;
    this.#buffers.abandon();
  }

  /** @returns false where there are more bytes than promised */
  #count(bytes: number): boolean {
    this.#remainingBytes -= bytes;
    if (this.#budget.countRead(bytes) && !this.#isWaiting) {
      this.#isWaiting = true;
      this.#budget.waitForTurn(() => {
        this.#isWaiting = false;
        this.#readOn();
      });
    }
    return this.#remainingBytes >= 0;
  }

  #continue(): void {
    this.flush();
    this.#readOn();
  }

  #readOn(): void {
    if (!this.#isPaused || this.#buffers.isFull || this.#isWaiting) return;
    this.#isPaused = false;
    this.#resume();
  }
}
