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
  throw new RegistryError(400, "UNSUPPORTED", `a ${method} request has no body here`);
}
