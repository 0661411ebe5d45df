import type { ServerResponse } from "node:http";

/** Where the body of an answer goes while it comes. */
export interface BodySink {
  /** Takes a chunk, and says when its memory may be used again. */
  write(chunk: Buffer, release: () => void): void;
  /**
   * All of it has come. Nothing is returned where that is the end, too.
   * @throws BodyCut where it is not what was asked for
   */
  end(): Promise<void> | undefined;
}

/** Passes a body on to the client as it comes. */
export const passTo = (response: ServerResponse): BodySink => ({
  write: (chunk, release) => void response.write(chunk, release),
  end() {
    response.end();
    return undefined;
  },
});
