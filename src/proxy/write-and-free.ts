import type { Writable } from "node:stream";

/** Smaller ones may be part of a buffer that others use, and are not worth it. Bytes. */
const leastFreed = 16 * 1024;

/**
 * Writes a chunk that nobody looks at any more, and frees its memory once it is out. Left to the garbage
 * collector, chunks of 64 KiB pile up faster than it comes round: marking, page faults and cold caches
 * then cost as much again as passing the bytes on.
 * @returns false where the next chunk should wait for `drain`
 */
export function writeAndFree(to: Writable, chunk: Buffer): boolean {
  return to.write(chunk, () => {
    const { buffer, byteLength } = chunk;
    const isWhole = byteLength === buffer.byteLength;
    if (isWhole && byteLength >= leastFreed && buffer instanceof ArrayBuffer) buffer.transfer(0);
  });
}
