import type { Writable } from "node:stream";
import { freeMemory } from "../upstream/http-client/free-memory.ts";

/**
 * Writes a chunk that nobody looks at any more, and frees its memory once it is out.
 * @returns false where the next chunk should wait for `drain`
 */
export const writeAndFree = (to: Writable, chunk: Buffer): boolean =>
  to.write(chunk, () => freeMemory(chunk));
