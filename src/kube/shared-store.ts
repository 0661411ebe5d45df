/** Entries of many owners in one bounded space, in which no owner can take the room of another. */
export interface SharedStore<T> {
  /** The value under a key, which counts as used now. */
  get(key: string): T | undefined;
  /** The value under a key, whose use does not count. */
  peek(key: string): T | undefined;
  /**
   * Keeps a value.
   * @param size what it takes of the space
   */
  set(key: string, value: T, owner: string, size: number): void;
  delete(key: string): void;
}

interface Entry<T> {
  readonly value: T;
  readonly owner: string;
  readonly size: number;
}

/** What an owner has, the least recently used entry first. */
interface Share<T> {
  readonly entries: Map<string, Entry<T>>;
  size: number;
}

/**
 * Creates an empty store. When it is full, the least recently used entry of the owner with the most goes. An `LRUCache`
 * does not fit, since it evicts whatever was not used for longest, whoever has filled it.
 * @param maxSize of all entries together
 */
export function createSharedStore<T>(maxSize: number): SharedStore<T> {
  const owners = new Map<string, string>();
  const shares = new Map<string, Share<T>>();
  let total = 0;

  function find(key: string): { readonly share: Share<T>; readonly entry: Entry<T> } | undefined {
    const share = shares.get(owners.get(key) ?? "");
    const entry = share?.entries.get(key);
    return share === undefined || entry === undefined ? undefined : { share, entry };
  }

  function remove(key: string): void {
    const found = find(key);
    if (found === undefined) return;
    const { share, entry } = found;
    share.entries.delete(key);
    share.size -= entry.size;
    total -= entry.size;
    owners.delete(key);
    if (share.entries.size === 0) shares.delete(entry.owner);
  }

  function evict(): void {
    let largest: Share<T> | undefined;
    for (const share of shares.values()) {
      if (largest === undefined || share.size > largest.size) largest = share;
    }
    const [oldest] = largest?.entries.keys() ?? [];
    if (oldest !== undefined) remove(oldest);
  }

  return {
    get(key) {
      const found = find(key);
      if (found === undefined) return undefined;
      found.share.entries.delete(key);
      found.share.entries.set(key, found.entry);
      return found.entry.value;
    },
    peek: (key) => find(key)?.entry.value,
    set(key, value, owner, size) {
      remove(key);
      const share = shares.get(owner) ?? { entries: new Map<string, Entry<T>>(), size: 0 };
      shares.set(owner, share);
      share.entries.set(key, { value, owner, size });
      share.size += size;
      total += size;
      owners.set(key, owner);
      while (total > maxSize) evict();
    },
    delete: remove,
  };
}
