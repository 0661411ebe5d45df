import { BodyBuffers, type BufferBudget } from "./body-buffers.ts";

export interface BodyReaderOptions {
  /** Bytes, as its head has promised; endless where somebody else sees to that. */
  readonly length: number;
  readonly budget: BufferBudget;
  /** Whether its bytes come by {@link BodyReader.copy}. */
  readonly isCopied: boolean;
  /** Takes a chunk, which is good until it is released. */
  readonly give: (chunk: Buffer, release: () => void) => void;
  /** The socket was told to stop, and may go on. */
  readonly resume: () => void;
}

/** TLS brings 64 KiB at a time at most, and what is copied should still be near when it is written. Bytes. */
const maxCopiedBytes = 256 * 1024;

/** A body on its way from a socket. */
export class BodyReader {
  readonly #buffers: BodyBuffers;
  readonly #resume: () => void;
  #left: number;
  #isPaused = false;
  #willFlush = false;

  constructor({ length, budget, isCopied, give, resume }: BodyReaderOptions) {
    this.#left = length;
    this.#resume = resume;
    const sink = { give, hasRoom: () => this.#goOn() };
    this.#buffers = new BodyBuffers(budget, sink, isCopied ? maxCopiedBytes : undefined);
  }

  /** Where the socket may read the next bytes to, unless it is told to stop. */
  get landing(): Buffer {
    return this.#buffers.landing;
  }

  /** Bytes that have still to come; negative where there were more than promised. */
  get left(): number {
    return this.#left;
  }

  /** Whether it is the client who takes its time. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** The socket has read so many bytes to the landing. */
  landed(bytes: number): void {
    if (this.#count(bytes)) this.#buffers.landed(bytes);
  }

  /** Takes bytes from elsewhere, and gives them away with what comes in the same turn of the event loop. */
  copy(bytes: Buffer): void {
    if (!this.#count(bytes.length)) return;
    this.#buffers.append(bytes);
    if (this.#willFlush) return;
    this.#willFlush = true;
    setImmediate(() => {
      this.#willFlush = false;
      if (!this.#buffers.isFull) this.flush();
    });
  }

  /** Gives away what has come. */
  flush(): void {
    this.#buffers.flush();
  }

  /** Tells whether the socket has to stop; `resume` is called for it to go on. */
  stops(): boolean {
    this.#isPaused = this.#buffers.isFull;
    return this.#isPaused;
  }

  /** The end of a body that is whole. The socket must not read to its landing any more. */
  close(): void {
    this.#isPaused = false;
    this.#buffers.close();
  }

  /** The end of any other. */
  abandon(): void {
    this.#buffers.abandon();
  }

  #count(bytes: number): boolean {
    this.#left -= bytes;
    return this.#left >= 0;
  }

  #goOn(): void {
    this.flush();
    if (!this.#isPaused || this.#buffers.isFull) return;
    this.#isPaused = false;
    this.#resume();
  }
}
