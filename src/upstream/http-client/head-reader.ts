import { errors } from "undici";
import { type FramedResponseHead, parseResponseHead } from "./message-head.ts";

const endOfHead = "\r\n\r\n";
/** A head whose lines end so would keep us waiting for its own end. */
const bareLineFeed = /[^\r]\n/;
/** RFC 9110, section 15.2, allows any number of them. */
const maxInformational = 8;

/** The head of a final answer, and what came behind it. */
export interface ReadHead {
  /** Undefined where it is one that `parseResponseHead` does not read; then there is no telling what the rest is. */
  readonly head: FramedResponseHead | undefined;
  readonly rest: Buffer;
}

interface Split {
  /** In latin1, without the empty line; undefined where lines end as they must not. */
  readonly text: string | undefined;
  readonly rest: Buffer;
}

/** Reads the head of an answer from bytes that come in pieces, and passes over informational answers before it. */
export class HeadReader {
  readonly #most: number;
  #pieces: string[] = [];
  #length = 0;
  /** The end of the pieces, in which the end of the head may have begun. */
  #tail = "";
  #informational = 0;

  /** @param most bytes of a head */
  constructor(most: number) {
    this.#most = most;
  }

  /** Whether nothing of an answer has come yet. */
  get isEmpty(): boolean {
    return this.#length === 0 && this.#informational === 0;
  }

  /**
   * Takes the next bytes, which may be used again afterwards, but for the rest behind a head.
   * @param method of the request
   * @returns undefined while the head is not whole; after one that is, it reads the next answer's
   * @throws HeadersOverflowError
   */
  read(bytes: Buffer, method: string): ReadHead | undefined {
    for (let left = bytes; left.length > 0; ) {
      const split = this.#split(left);
      if (split === undefined) return undefined;
      const { text, rest } = split;
      const head = text === undefined ? undefined : parseResponseHead(text, method);
      if (head === undefined || head.status === 101) return { head: undefined, rest };
      if (head.status >= 200) {
        this.#informational = 0;
        return { head, rest };
      }
      this.#informational += 1;
      if (this.#informational > maxInformational) return { head: undefined, rest };
      left = rest;
    }
    return undefined;
  }

  #split(bytes: Buffer): Split | undefined {
    const end = this.#length === 0 ? bytes.indexOf(endOfHead, 0, "latin1") : -1;
    return end < 0
      ? this.#join(bytes)
      : this.#whole(bytes.toString("latin1", 0, end), bytes, end + endOfHead.length);
  }

  #join(bytes: Buffer): Split | undefined {
    const piece = bytes.toString("latin1");
    const seam = this.#tail + piece;
    const end = seam.indexOf(endOfHead);
    if (end >= 0) {
      const before = this.#pieces.join("").slice(0, this.#length - this.#tail.length);
      const consumed = end + endOfHead.length - this.#tail.length;
      return this.#whole(before + seam.slice(0, end), bytes, consumed);
    }
    if (bareLineFeed.test(this.#length === 0 ? ` ${seam}` : seam)) {
      return { text: undefined, rest: bytes };
    }
    this.#pieces.push(piece);
    this.#length += bytes.length;
    this.#tail = seam.slice(-3);
    if (this.#length > this.#most) throw new errors.HeadersOverflowError();
    return undefined;
  }

  #whole(text: string, bytes: Buffer, from: number): Split {
    this.#pieces = [];
    this.#length = 0;
    this.#tail = "";
    if (text.length > this.#most) throw new errors.HeadersOverflowError();
    return { text, rest: bytes.subarray(from) };
  }
}
