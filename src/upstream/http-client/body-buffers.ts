/** The memory in which bodies pass: a few large buffers that are used again and again, out of one budget for all bodies. */

const maxBufferBytes = 1024 * 1024;
const minBufferBytes = 16 * 1024;

/** What is read of all bodies together in one round of the event loop: it takes a few milliseconds. */
const bytesPerRound = 1024 * 1024;
/** The same where there are many: everybody else's requests need some ten rounds. Each costs a little, too. */
const bytesPerRoundOfMany = 256 * 1024;
const many = 16;
/** Bodies that are read on in a round, of those that wait for one. Node reads 64 KiB of each at a time. */
const bodiesPerRound = 4;

/** Shares out memory, and the rounds of the event loop, among the bodies that are under way. */
export class BufferBudget {
  readonly #totalBytes: number;
  #bodies = 0;
  /** What was read in this round. */
  #roundBytes = 0;
  /** What lets the bodies read on that wait for their turn, in order. */
  readonly #waiting: (() => void)[] = [];

  /** @param totalBytes for all bodies together; bodies beyond `totalBytes / 32 KiB` get 32 KiB each all the same */
  constructor(totalBytes: number) {
    this.#totalBytes = totalBytes;
  }

  /** Counts a body that begins. */
  addBody(): void {
    this.#bodies += 1;
  }

  /** Counts a body that has ended. */
  removeBody(): void {
    this.#bodies -= 1;
  }

  /**
   * Counts what was read of a body.
   * @returns whether that was enough for this round of the event loop. Node would read up to 32 times of each connection
   *   before anybody else gets their turn.
   */
  countRead(bytes: number): boolean {
    if (this.#roundBytes === 0 && this.#waiting.length === 0) setImmediate(this.#nextRound);
    this.#roundBytes += bytes;
    return this.#roundBytes >= (this.#bodies < many ? bytesPerRound : bytesPerRoundOfMany);
  }

  /** Calls a function in one of the next rounds of the event loop, when a body may be read on. */
  waitForTurn(readOn: () => void): void {
    this.#waiting.push(readOn);
  }

  readonly #nextRound = (): void => {
    this.#roundBytes = 0;
    for (const readOn of this.#waiting.splice(0, bodiesPerRound)) readOn();
    if (this.#waiting.length > 0) setImmediate(this.#nextRound);
  };

  /** Bytes of each of a body's two buffers: a power of two, so that a few bodies more or less change nothing. */
  get bufferBytes(): number {
    const share = this.#totalBytes / 2 / Math.max(this.#bodies, 1);
    return Math.min(maxBufferBytes, Math.max(minBufferBytes, 2 ** Math.floor(Math.log2(share))));
  }
}

/** Whoever takes the bytes of a body out of its buffers. */
export interface ChunkConsumer {
  /** Takes a chunk. Its memory must not be looked at any more once `release` is called. */
  readonly onChunk: (chunk: Buffer, release: () => void) => void;
  /** A chunk has been released, and a buffer is free to read into. */
  readonly onRoom: () => void;
}

/**
 * The two buffers of a body, used in turn: the consumer writes one while the socket fills the other. A socket reads
 * straight into `readBuffer` and then says so by `filled`, or its bytes are copied by `append`.
 */
export class BodyBuffers {
  readonly #budget: BufferBudget;
  readonly #consumer: ChunkConsumer;
  readonly #maxBytes: number;
  readonly #free: Buffer[] = [];
  /** Handed to the consumer and not released yet, the oldest first. */
  readonly #unreleased: Buffer[] = [];
  /** The buffer that is being filled, if there is one. */
  #current: Buffer | undefined;
  #filledBytes = 0;
  #state: "open" | "closed" | "abandoned" = "open";

  /** @param maxBytes of each buffer, where its share of the budget is larger */
  constructor(budget: BufferBudget, consumer: ChunkConsumer, maxBytes: number = maxBufferBytes) {
    this.#budget = budget;
    this.#consumer = consumer;
    this.#maxBytes = maxBytes;
    budget.addBody();
  }

  get #bufferBytes(): number {
    return Math.min(this.#budget.bufferBytes, this.#maxBytes);
  }

  /** Whether the consumer has both buffers, so that nothing may be read now. */
  get isFull(): boolean {
    const { length } = this.#unreleased;
    return length >= 2 || (length > 0 && this.#unreleased[0] === this.#current);
  }

  /**
   * The buffer that the socket reads the next bytes into. While the consumer has both, it is the older one, which may
   * be read into once it is released.
   */
  get readBuffer(): Buffer {
    const [oldest] = this.#unreleased;
    if (this.isFull && oldest?.length === this.#bufferBytes) this.#current ??= oldest;
    this.#current ??= this.#take();
    return this.#current;
  }

  /** The socket has read so many bytes into `readBuffer`. They go to the consumer. */
  filled(bytes: number): void {
    this.#filledBytes = bytes;
    this.flush();
  }

  /** Copies bytes. They go to the consumer when a buffer is full, or by `flush`. */
  append(bytes: Buffer): void {
    for (let from = 0; from < bytes.length && this.#state === "open"; ) {
      this.#current ??= this.#take();
      const copied = bytes.copy(this.#current, this.#filledBytes, from);
      this.#filledBytes += copied;
      from += copied;
      if (this.#filledBytes === this.#current.length) this.flush();
    }
  }

  /** Hands the consumer what has come and was not handed over yet. */
  flush(): void {
    const buffer = this.#current;
    if (buffer === undefined || this.#filledBytes === 0 || this.#state === "abandoned") return;
    const chunk = buffer.subarray(0, this.#filledBytes);
    this.#current = undefined;
    this.#filledBytes = 0;
    this.#unreleased.push(buffer);
    this.#consumer.onChunk(chunk, () => this.#release(buffer));
  }

  /**
   * The body is whole. Hands over the last bytes, and frees each buffer once it is released. The socket must not read
   * into them any more.
   */
  close(): void {
    this.flush();
    if (this.#state !== "open") return;
    this.#state = "closed";
    this.#budget.removeBody();
    for (const buffer of this.#free.splice(0)) freeMemory(buffer);
  }

  /** The body has failed. Its socket may still read into a buffer, so the garbage collector frees them. */
  abandon(): void {
    if (this.#state === "open") this.#budget.removeBody();
    this.#state = "abandoned";
  }

  #take(): Buffer {
    const size = this.#bufferBytes;
    for (;;) {
      const buffer = this.#free.pop();
      if (buffer === undefined) return Buffer.allocUnsafeSlow(size);
      if (buffer.length === size) return buffer;
      freeMemory(buffer);
    }
  }

  #release(buffer: Buffer): void {
    const index = this.#unreleased.indexOf(buffer);
    if (index < 0 || this.#state === "abandoned") return;
    this.#unreleased.splice(index, 1);
    if (buffer !== this.#current) {
      const isWanted = this.#state === "open" && this.#free.length + this.#unreleased.length < 2;
      if (isWanted) this.#free.push(buffer);
      else freeMemory(buffer);
    }
    if (!this.isFull) this.#consumer.onRoom();
  }
}

/** Smaller buffers may be part of one that others use, and are not worth freeing. */
const minFreedBytes = 16 * 1024;

/**
 * Frees the memory of a buffer that nobody looks at any more. Left to the garbage collector, buffers pile up
 * faster than it comes round: marking, page faults and cold caches then cost as much again as passing the
 * bytes on. A buffer that is part of a larger one is left alone.
 */
export function freeMemory({ buffer, byteLength }: Buffer): void {
  const isWhole = byteLength === buffer.byteLength;
  if (isWhole && byteLength >= minFreedBytes && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
