import { LRUCache } from "lru-cache";

export interface SharedCacheOptions<Value> {
  /** Of all owners together. */
  readonly maxBytes: number;
  /** Of one owner. */
  readonly maxBytesPerOwner: number;
  /** Bytes of a value, beside its key. A rough count is enough. */
  readonly sizeBytes: (value: Value) => number;
  /** Is told of each value that goes since there is no room for it any more. */
  readonly onEvict?: (value: Value) => void;
}

/** What an entry takes beside its key and its value: its place in the lists, its objects, its times. */
const entryBytes = 512;
/** Of a text that has letters beyond latin1. */
const bytesPerCharacter = 2;

/**
 * A cache that many owners share. Each owner has a bound of its own, so nobody can push out what belongs to another; at
 * the bound of all together, the owner that holds the most loses what it has not used for the longest time.
 */
export class SharedCache<Value extends object> {
  readonly #options: SharedCacheOptions<Value>;
  // A plain Map: an owner is forgotten with its last entry, and the bytes of all of them are bounded.
  readonly #owners = new Map<string, LRUCache<string, Value>>();
  #bytes = 0;

  constructor(options: SharedCacheOptions<Value>) {
    this.#options = options;
  }

  /** An owner's entry, which counts as used now. */
  get(owner: string, key: string): Value | undefined {
    return this.#owners.get(owner)?.get(key);
  }

  /** Keeps an entry in place of the older one of this key. One that is larger than all that an owner may have is not kept. */
  set(owner: string, key: string, value: Value): void {
    const { maxBytes, maxBytesPerOwner, sizeBytes, onEvict } = this.#options;
    const size = entryBytes + key.length * bytesPerCharacter + sizeBytes(value);
    if (size > maxBytesPerOwner) {
      this.delete(owner, key);
      return;
    }
    // Without `max`, which would take the memory of so many entries at once.
    const entries =
      this.#owners.get(owner) ??
      new LRUCache({
        maxSize: maxBytesPerOwner,
        dispose(evicted, _key, reason) {
          if (reason === "evict") onEvict?.(evicted);
        },
      });
    this.#owners.set(owner, entries);
    this.#change(owner, entries, () => entries.set(key, value, { size }));
    while (this.#bytes > maxBytes && this.#owners.size > 0) this.#shrinkLargest();
  }

  /** The values of all owners. */
  *values(): Generator<Value> {
    for (const entries of this.#owners.values()) yield* entries.values();
  }

  /** Forgets an entry. */
  delete(owner: string, key: string): void {
    const entries = this.#owners.get(owner);
    if (entries !== undefined) this.#change(owner, entries, () => entries.delete(key));
  }

  #change(owner: string, entries: LRUCache<string, Value>, change: () => void): void {
    const before = entries.calculatedSize;
    change();
    this.#bytes += entries.calculatedSize - before;
    if (entries.size === 0) this.#owners.delete(owner);
  }

  #shrinkLargest(): void {
    let largest: [owner: string, entries: LRUCache<string, Value>] | undefined;
    for (const each of this.#owners) {
      if (largest === undefined || each[1].calculatedSize > largest[1].calculatedSize)
        largest = each;
    }
    if (largest === undefined) return;
    const [owner, entries] = largest;
    this.#change(owner, entries, () => entries.pop());
  }
}
