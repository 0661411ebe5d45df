import type { IncomingMessage, ServerResponse } from "node:http";

/**
 * Ends the connection of a client that stops reading its answer. Whoever unpacks a layer while it arrives may
 * rest for a while; whoever rests for ever would keep a connection to the registry for ever, too.
 * @param timeout milliseconds in which not a byte is taken; it may take twice as long until that is noticed
 */
export function endWhenStalled(
  { socket }: IncomingMessage,
  response: ServerResponse,
  timeout: number,
): void {
  let taken = -1;
  const timer = setInterval(() => {
    const isWaiting = socket.writableLength > 0;
    const before = taken;
    // `bytesWritten` counts what has been given to the socket.
    taken = isWaiting ? socket.bytesWritten - socket.writableLength : -1;
    if (isWaiting && taken === before) socket.destroy();
  }, timeout).unref();
  response.once("close", () => clearInterval(timer));
}
