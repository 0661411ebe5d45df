import type { IncomingMessage } from "node:http";
import { RegistryError } from "./registry-error.ts";

/** RFC 9112, section 6: a request has a body where one of these says so. */
export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;

const withBody = ["PATCH", "POST", "PUT"];

/**
 * Refuses a body where none belongs. Node's client sends one with GET or DELETE unframed unless it is
 * told its length, and a registry would read it as the next request.
 * @throws RegistryError 400
 */
export function checkBody(request: IncomingMessage, method: string): void {
  if (withBody.includes(method) || !hasBody(request)) return;
  throw new RegistryError(400, "UNSUPPORTED", `a ${method} request must not have a body`);
}

/**
 * Ends the connection of a client that stops in the middle of a body. Time in which a body is held
 * back, since the registry is slower, does not count.
 * @param timeout milliseconds without a byte; it may take twice as long until they are noticed
 * @returns ends the watch
 */
export function endWhenIdle(request: IncomingMessage, timeout: number): () => void {
  let seen = -1;
  const timer = setInterval(() => {
    const { bytesRead } = request.socket;
    const isIdle = bytesRead === seen && request.readableLength === 0;
    seen = bytesRead;
    if (isIdle && !request.complete) request.destroy();
  }, timeout);
  return () => clearInterval(timer);
}
