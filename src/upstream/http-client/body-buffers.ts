const maxBufferBytes = 1024 * 1024;
const minBufferBytes = 16 * 1024;

/** Memory for the bodies that are under way, shared out among them. */
export class BufferBudget {
  readonly #total: number;
  #bodies = 0;

  /** @param total bytes for all; bodies beyond `total / 32 KiB` get 32 KiB each all the same */
  constructor(total: number) {
    this.#total = total;
  }

  begin(): void {
    this.#bodies += 1;
  }

  end(): void {
    this.#bodies -= 1;
  }

  /** Bytes of each of a body's two buffers: a power of two, so that a few bodies more or less change nothing. */
  get size(): number {
    const share = this.#total / 2 / Math.max(this.#bodies, 1);
    return Math.min(maxBufferBytes, Math.max(minBufferBytes, 2 ** Math.floor(Math.log2(share))));
  }
}

/** What becomes of the bytes of a body. */
export interface ChunkConsumer {
  /** Takes a chunk, which is good until it is released. */
  readonly give: (chunk: Buffer, release: () => void) => void;
  /** Chunks have been released, so that there is room again. */
  readonly hasRoom: () => void;
}

/**
 * The two buffers of a body, used in turn: one is filled while the other is written. A socket may read
 * straight into `landing`, or its bytes are copied by `append`.
 */
export class BodyBuffers {
  readonly #budget: BufferBudget;
  readonly #sink: ChunkConsumer;
  readonly #most: number;
  readonly #free: Buffer[] = [];
  /** Given away, the oldest first. */
  readonly #given: Buffer[] = [];
  /** The one that is being filled, if there is any. */
  #current: Buffer | undefined;
  #filled = 0;
  #state: "open" | "closed" | "abandoned" = "open";

  /** @param most bytes of each buffer, if its share of the budget is larger */
  constructor(budget: BufferBudget, sink: ChunkConsumer, most: number = maxBufferBytes) {
    this.#budget = budget;
    this.#sink = sink;
    this.#most = most;
    budget.begin();
  }

  get #size(): number {
    return Math.min(this.#budget.size, this.#most);
  }

  /** Whether nothing may be read now, since both are given away. */
  get isFull(): boolean {
    const { length } = this.#given;
    return length >= 2 || (length > 0 && this.#given[0] === this.#current);
  }

  /** Where the next bytes are read to. While both are given away, it is the older one, to be read to once it is released. */
  get landing(): Buffer {
    const [oldest] = this.#given;
    if (this.isFull && oldest?.length === this.#size) this.#current ??= oldest;
    this.#current ??= this.#take();
    return this.#current;
  }

  /** So many bytes have been read to the landing; they are given away. */
  landed(bytes: number): void {
    this.#filled = bytes;
    this.flush();
  }

  /** Copies bytes; they are given away when a buffer is full, or by `flush`. */
  append(bytes: Buffer): void {
    for (let from = 0; from < bytes.length && this.#state === "open"; ) {
      this.#current ??= this.#take();
      const copied = bytes.copy(this.#current, this.#filled, from);
      this.#filled += copied;
      from += copied;
      if (this.#filled === this.#current.length) this.flush();
    }
  }

  /** Gives away what has not been yet. */
  flush(): void {
    const buffer = this.#current;
    if (buffer === undefined || this.#filled === 0 || this.#state === "abandoned") return;
    const chunk = buffer.subarray(0, this.#filled);
    this.#current = undefined;
    this.#filled = 0;
    this.#given.push(buffer);
    this.#sink.give(chunk, () => this.#release(buffer));
  }

  /** The body is whole: gives away the last bytes, and frees each buffer once it is released. No socket may read to them any more. */
  close(): void {
    this.flush();
    if (this.#state !== "open") return;
    this.#state = "closed";
    this.#budget.end();
    for (const buffer of this.#free.splice(0)) freeMemory(buffer);
  }

  /** The body has failed. Its socket may hold on to a buffer yet, so the garbage collector has to see to them. */
  abandon(): void {
    if (this.#state === "open") this.#budget.end();
    this.#state = "abandoned";
  }

  #take(): Buffer {
    const size = this.#size;
    for (;;) {
      const buffer = this.#free.pop();
      if (buffer === undefined) return Buffer.allocUnsafeSlow(size);
      if (buffer.length === size) return buffer;
      freeMemory(buffer);
    }
  }

  #release(buffer: Buffer): void {
    const index = this.#given.indexOf(buffer);
    if (index < 0 || this.#state === "abandoned") return;
    this.#given.splice(index, 1);
    if (buffer !== this.#current) {
      const isWanted = this.#state === "open" && this.#free.length + this.#given.length < 2;
      if (isWanted) this.#free.push(buffer);
      else freeMemory(buffer);
    }
    if (!this.isFull) this.#sink.hasRoom();
  }
}

/** Smaller ones may be part of a buffer that others use, and are not worth it. Bytes. */
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
