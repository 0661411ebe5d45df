import { ConnectionError } from "./connection-error.ts";
import { type FramedResponseHead, InvalidResponse, parseResponseHead } from "./message-head.ts";

const endOfHead = "\r\n\r\n";
/** A line that ends in LF alone. Of a head with such lines the end might never come. */
const bareLineFeed = /[^\r]\n/;
/** RFC 9110, section 15.2, allows any number of informational responses. */
const maxInformational = 8;

/** The head of a final response, and the bytes behind it. */
export interface ReadHead {
  readonly head: FramedResponseHead;
  readonly rest: Buffer;
}

/** A head that is not parsed yet, and the bytes behind it. */
interface SplitHead {
  /** In latin1, without the empty line. */
  readonly text: string;
  readonly rest: Buffer;
}

/**
 * Finds the heads of responses in bytes that come in pieces, and passes over informational responses. One reader serves
 * a connection for all its responses, one after the other.
 */
export class HeadReader {
  readonly #maxBytes: number;
  #pieces: string[] = [];
  #length = 0;
  /** The last characters of the pieces, in which the end of the head may have begun. */
  #tail = "";
  #informational = 0;

  /** @param maxBytes of a head */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Whether nothing of a response has come yet. */
  get isEmpty(): boolean {
    return this.#length === 0 && this.#informational === 0;
  }

  /**
   * Takes the next bytes. Their memory may be used again afterwards, but for the rest behind a head.
   * @param method of the request
   * @returns undefined while the head is not whole; after a whole one, the reader is ready for the next response
   * @throws ConnectionError, InvalidResponse
   */
  read(bytes: Buffer, method: string): ReadHead | undefined {
    for (let unread = bytes; unread.length > 0; ) {
      const split = this.#split(unread);
      if (split === undefined) return undefined;
      const { text, rest } = split;
      const head = parseResponseHead(text, method);
      if (head.status === 101) {
        throw new InvalidResponse("it changes the protocol, which nobody wanted");
      }
      if (head.status >= 200) {
        this.#informational = 0;
        return { head, rest };
      }
      this.#informational += 1;
      if (this.#informational > maxInformational) {
        throw new InvalidResponse("too many informational responses come before it");
      }
      unread = rest;
    }
    return undefined;
  }

  #split(bytes: Buffer): SplitHead | undefined {
    const end = this.#length === 0 ? bytes.indexOf(endOfHead, 0, "latin1") : -1;
    return end < 0
      ? this.#appendPiece(bytes)
      : this.#complete(bytes.toString("latin1", 0, end), bytes, end + endOfHead.length);
  }

  #appendPiece(bytes: Buffer): SplitHead | undefined {
    const piece = bytes.toString("latin1");
    const seam = this.#tail + piece;
    const end = seam.indexOf(endOfHead);
    if (end >= 0) {
      const before = this.#pieces.join("").slice(0, this.#length - this.#tail.length);
      const consumed = end + endOfHead.length - this.#tail.length;
      return this.#complete(before + seam.slice(0, end), bytes, consumed);
    }
    if (bareLineFeed.test(this.#length === 0 ? ` ${seam}` : seam)) {
      throw new InvalidResponse("a line of its head ends in LF alone");
    }
    this.#pieces.push(piece);
    this.#length += bytes.length;
    this.#tail = seam.slice(-3);
    if (this.#length > this.#maxBytes) throw new ConnectionError("HEADERS_OVERFLOW");
    return undefined;
  }

  #complete(text: string, bytes: Buffer, from: number): SplitHead {
    this.#pieces = [];
    this.#length = 0;
    this.#tail = "";
    if (text.length > this.#maxBytes) throw new ConnectionError("HEADERS_OVERFLOW");
    return { text, rest: bytes.subarray(from) };
  }
}
