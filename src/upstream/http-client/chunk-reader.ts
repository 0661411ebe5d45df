import { InvalidResponse } from "./message-head.ts";

/** The line before a chunk (RFC 9112, section 7.1.1), with spaces at its end, which some servers pad it with. */
const chunkLine =
  /^([0-9A-Fa-f]+)(?:[ \t]*;[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*=[ \t]*(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"))?)*[ \t]*$/;
const sizeAlone = /^[0-9A-Fa-f]+$/;
/** More digits are a size that no number holds exactly, unless they are zeros. */
const maxSizeDigits = 13;
const trailerLine = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*$/;
/** Of a line before a chunk, of all trailers, and of what extensions may be longer than the chunks that they stand at. */
const maxOverheadBytes = 16 * 1024;
/** A chunk of n bytes may have a line of so many bytes, and two for each of its own, however many chunks there are. */
const freeLineBytes = 16;

const carriageReturn = 0x0d;
const lineFeed = 0x0a;

/**
 * Reads a body that comes in chunks (RFC 9112, section 7.1), in bytes that may be cut anywhere. Extensions and trailers are
 * checked and dropped. Every line ends in CRLF, so that nobody reads the body in another way.
 */
export class ChunkReader {
  #state: "size" | "data" | "end of data" | "trailers" | "done" = "size";
  /** What has come of the line that is read, in latin1. */
  #line = "";
  /** Bytes of the chunk that have still to come. */
  #remainingBytes = 0;
  /** Bytes of extensions that the chunks so far have not made up for. */
  #excessBytes = 0;
  #trailerBytes = 0;

  /**
   * Takes the next bytes.
   * @param onData is called with each piece of the body that is among them
   * @returns the bytes behind the body, once it is whole; undefined before
   * @throws InvalidResponse
   */
  read(bytes: Buffer, onData: (piece: Buffer) => void): Buffer | undefined {
    let at = 0;
    while (at < bytes.length && this.#state !== "done") {
      if (this.#state === "data") {
        const end = Math.min(at + this.#remainingBytes, bytes.length);
        onData(bytes.subarray(at, end));
        this.#remainingBytes -= end - at;
        at = end;
        if (this.#remainingBytes === 0) this.#state = "end of data";
        continue;
      }
      const lineEnd = bytes.indexOf(lineFeed, at);
      const end = lineEnd < 0 ? bytes.length : lineEnd + 1;
      this.#addToLine(bytes.toString("latin1", at, end));
      at = end;
      if (lineEnd >= 0) this.#endLine();
    }
    return this.#state === "done" ? bytes.subarray(at) : undefined;
  }

  #addToLine(text: string): void {
    this.#line += text;
    const maxBytes = this.#state === "end of data" ? "\r\n".length : maxOverheadBytes;
    if (this.#line.length > maxBytes) throw new InvalidResponse("a line in its chunks is too long");
  }

  #endLine(): void {
    const line = this.#line;
    this.#line = "";
    if (line.charCodeAt(line.length - 2) !== carriageReturn) {
      throw new InvalidResponse("a line in its chunks ends in LF alone");
    }
    const text = line.slice(0, -2);
    if (this.#state === "size") this.#beginChunk(text);
    else if (this.#state === "trailers") this.#endTrailer(text);
    else if (text === "") this.#state = "size";
    else throw new InvalidResponse("a chunk is longer than it says");
  }

  #beginChunk(line: string): void {
    const size = sizeAlone.test(line) ? line : chunkLine.exec(line)?.[1];
    if (size === undefined) throw new InvalidResponse("a chunk begins without its size");
    const digits = size.length > maxSizeDigits ? size.replace(/^0+(?=.)/, "") : size;
    if (digits.length > maxSizeDigits) {
      throw new InvalidResponse("a chunk says that it has 4 PiB or more");
    }
    this.#remainingBytes = Number.parseInt(digits, 16);
    const excess = line.length - freeLineBytes - 2 * this.#remainingBytes;
    this.#excessBytes = Math.max(0, this.#excessBytes + excess);
    if (this.#excessBytes > maxOverheadBytes) {
      throw new InvalidResponse("its chunks have longer extensions than content");
    }
    this.#state = this.#remainingBytes > 0 ? "data" : "trailers";
  }

  #endTrailer(line: string): void {
    this.#trailerBytes += line.length;
    if (this.#trailerBytes > maxOverheadBytes)
      throw new InvalidResponse("its trailers are too long");
    if (line === "") this.#state = "done";
    else if (!trailerLine.test(line))
      throw new InvalidResponse("it has a trailer that is no header");
  }
}
