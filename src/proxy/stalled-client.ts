import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** Looks after an answer until it is closed. */
export type EndWhenStalled = (response: ServerResponse) => void;

/**
 * Ends the connections of clients that stop reading their answer. Whoever unpacks a layer while it arrives may
 * rest for a while; whoever rests for ever would keep a connection to the registry for ever, too.
 * @param timeoutMs milliseconds in which not a byte is taken; it may take twice as long until that is noticed
 */
export function createStallWatch(timeoutMs: number): EndWhenStalled {
  /** What each had taken when it was looked at last; undefined where nothing waited to be taken. */
  const taken = new Map<ServerResponse, number | undefined>();
  let timer: NodeJS.Timeout | undefined;
  const look = (): void => {
    for (const [response, before] of taken) {
      const now = bytesTaken(response.req.socket);
      if (now !== undefined && now === before) response.req.socket.destroy();
      taken.set(response, now);
    }
    if (taken.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
  return (response) => {
    taken.set(response, undefined);
    response.once("close", () => taken.delete(response));
    timer ??= setInterval(look, timeoutMs).unref();
  };
}

/** Bytes that a client has taken; undefined where none wait for it. `bytesWritten` counts what has been given to the socket. */
const bytesTaken = ({ bytesWritten, writableLength }: Socket): number | undefined =>
  writableLength > 0 ? bytesWritten - writableLength : undefined;
