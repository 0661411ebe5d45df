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
