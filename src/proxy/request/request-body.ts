import type { IncomingMessage, ServerResponse } from "node:http";
import { ClientGone } from "../client-gone.ts";
import { RegistryError } from "../registry-error.ts";
import type { RequestLimiter } from "../request-limits.ts";

/** Whether a request has a body, by its headers (RFC 9112, section 6). */
export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;

const methodsWithBody = ["PATCH", "POST", "PUT"];

/**
 * Refuses a body of a method that has none in the registry API. Node's client sends the body of a GET or DELETE unframed
 * unless it is given a length, and a registry would read it as the next request.
 * @throws RegistryError 400
 */
export function checkBody(request: IncomingMessage, method: string): void {
  if (methodsWithBody.includes(method) || !hasBody(request)) return;
  throw new RegistryError(400, "UNSUPPORTED", `a ${method} request must not have a body`);
}

/**
 * Ends the connection of a client that stops in the middle of its body. Time in which the proxy holds the body back,
 * since the registry is slower, does not count.
 * @param timeoutMs how long no byte may come; it may take twice as long until that is noticed
 * @returns a function that ends the watch
 */
export function endWhenIdle(request: IncomingMessage, timeoutMs: number): () => void {
  let seen = -1;
  const timer = setInterval(() => {
    const { bytesRead } = request.socket;
    const isIdle = bytesRead === seen && request.readableLength === 0;
    seen = bytesRead;
    if (isIdle && !request.complete) request.destroy();
  }, timeoutMs);
  return () => clearInterval(timer);
}

/**
 * The most that one push makes the proxy hold in memory: twice the 4 MiB that registries take (distribution-spec 1.1,
 * "Pushing Manifests").
 */
export const maxManifestBytes: number = 8 * 1024 * 1024;

/**
 * Reads a manifest whole, so that its request can be sent again with another token. The bytes count as held until the
 * response is closed.
 * @param bodyTimeoutMs how long no byte of it may come, see {@link endWhenIdle}
 * @returns undefined where the request has no body
 * @throws RegistryError 413 where the manifest is too large, 429 where too much is held already; ClientGone
 */
export async function readManifestBody(
  request: IncomingMessage,
  response: ServerResponse,
  bodyTimeoutMs: number,
  limits: RequestLimiter,
): Promise<Buffer | undefined> {
  if (!hasBody(request)) return undefined;
  if (Number(request.headers["content-length"] ?? 0) > maxManifestBytes) throw tooLarge();
  if (request.headers.expect !== undefined) response.writeContinue();
  const hold = limits.holdBytesFor(response);
  const chunks: Buffer[] = [];
  let size = 0;
  const stopWatching = endWhenIdle(request, bodyTimeoutMs);
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      size += chunk.length;
      if (size > maxManifestBytes) throw tooLarge();
      hold(chunk.length);
      chunks.push(chunk);
    }
  } catch (error) {
    throw error instanceof RegistryError ? error : new ClientGone(String(error));
  } finally {
    stopWatching();
  }
  return Buffer.concat(chunks);
}

const tooLarge = (): RegistryError =>
  new RegistryError(413, "SIZE_INVALID", "this manifest is larger than 8 MiB", {
    detail: "registries take manifests of up to 4 MiB",
  });
