import type { IncomingMessage, ServerResponse } from "node:http";
import { ClientGone } from "../client-gone.ts";
import { RegistryError } from "../registry-error.ts";
import type { LimitKeeper } from "../request-limits.ts";
import { endWhenIdle, hasBody } from "./request-body.ts";

/**
 * Registries take manifests of 4 MiB (distribution-spec 1.1, "Pushing Manifests"), clients send none that is much larger.
 * Twice that is the most that one push makes us hold.
 */
const largestManifest = 8 * 1024 * 1024;

/**
 * Reads a manifest whole, so that its request can be sent again with another token. Undefined where there is no body.
 * @throws RegistryError 413 where it is too large, 429 where too much is held already; ClientGone
 */
export async function readManifest(
  request: IncomingMessage,
  response: ServerResponse,
  bodyTimeout: number,
  limits: LimitKeeper,
): Promise<Buffer | undefined> {
  if (!hasBody(request)) return undefined;
  if (Number(request.headers["content-length"] ?? 0) > largestManifest) throw tooLarge();
  if (request.headers.expect !== undefined) response.writeContinue();
  const hold = limits.holderFor(response);
  const chunks: Buffer[] = [];
  let size = 0;
  const stopWatching = endWhenIdle(request, bodyTimeout);
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      size += chunk.length;
      if (size > largestManifest) throw tooLarge();
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
