import { type Readable, Stream, type Writable } from "node:stream";
import type { BufferBudget } from "../../upstream/http-client/body-buffers.ts";
import { BodyReader } from "../../upstream/http-client/body-reader.ts";
import { freeMemory } from "../../upstream/http-client/free-memory.ts";

/**
 * A request's body, on its way to where it is piped. TLS hands over 16 KiB at a time (RFC 8446, section 5.1), and a
 * write of that costs more than a copy, so what comes in one turn of the event loop is copied together and written at once.
 */
export class GatheredBody extends Stream {
  readonly #request: Readable;
  readonly #budget: BufferBudget;

  constructor(request: Readable, budget: BufferBudget) {
    super();
    this.#request = request;
    this.#budget = budget;
  }

  override pipe<T extends NodeJS.WritableStream>(to: T & Writable): T {
    const request = this.#request;
    const body = new BodyReader({
      length: Number.POSITIVE_INFINITY,
      budget: this.#budget,
      isCopied: true,
      give: (chunk, release) => to.write(chunk, release),
      resume: () => request.resume(),
    });
    const gather = (chunk: Buffer): void => {
      body.copy(chunk);
      freeMemory(chunk);
      if (body.stops()) request.pause();
    };
    const end = (): void => {
      body.close();
      to.end();
    };
    request.on("data", gather).once("end", end);
    to.once("close", () => {
      request.off("data", gather).off("end", end);
      body.abandon();
    });
    return to;
  }
}
