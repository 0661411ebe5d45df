import type { IncomingMessage, ServerResponse } from "node:http";
import { freeMemory } from "../../upstream/http-client/body-buffers.ts";
import { ClientGone } from "../client-gone.ts";
import { RegistryError } from "../registry-error.ts";

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
 * Reads bodies in turns, a piece of each at a time. Otherwise libuv reads up to 32 pieces of 64 KiB of each connection
 * before any other request gets its turn: 128 MiB where 64 clients send fast.
 */
export class BodyTurns {
  readonly #bodiesPerRound: number;
  /** The bodies that wait for their turn, of all clients, in order. */
  readonly #waiting: IncomingMessage[] = [];

  /** @param bodiesPerRound so many bodies are read on in one round of the event loop, by up to 80 KiB each */
  constructor(bodiesPerRound: number) {
    this.#bodiesPerRound = bodiesPerRound;
  }

  /** Has a body that flows wait for its turn after each piece. @returns a function that ends that */
  enter(request: IncomingMessage): () => void {
    const onData = (): void => {
      request.pause();
      if (this.#waiting.push(request) === 1) setImmediate(this.#nextRound);
    };
    request.on("data", onData);
    return () => request.off("data", onData);
  }

  readonly #nextRound = (): void => {
    for (const request of this.#waiting.splice(0, this.#bodiesPerRound)) request.resume();
    if (this.#waiting.length > 0) setImmediate(this.#nextRound);
  };
}

const manifestTurns = new BodyTurns(4);

/**
 * The most that one push makes the proxy hold in memory: twice the 4 MiB that registries take (distribution-spec 1.1,
 * "Pushing Manifests").
 */
export const maxManifestBytes: number = 8 * 1024 * 1024;

/** How a manifest is read. */
export interface ManifestBodyOptions {
  /** How long no byte of it may come, see {@link endWhenIdle}. */
  readonly bodyTimeoutMs: number;
  /** How long all of it may take to come. */
  readonly manifestTimeoutMs: number;
  /** Is told how much more memory is held for it. It throws RegistryError 429 where that is too much. */
  readonly holdBytes: (bytes: number) => void;
}

/**
 * Reads a manifest whole, so that its request can be sent again with another token. The bytes count as held until the
 * response is closed.
 * @returns undefined where the request has no body
 * @throws RegistryError 413 where the manifest is too large, 429 where too much is held already, 408 where it does not
 *   come in time; ClientGone
 */
export async function readManifestBody(
  request: IncomingMessage,
  response: ServerResponse,
  { bodyTimeoutMs, manifestTimeoutMs, holdBytes }: ManifestBodyOptions,
): Promise<Buffer | undefined> {
  if (!hasBody(request)) return undefined;
  const length = Number(request.headers["content-length"] ?? maxManifestBytes);
  if (length > maxManifestBytes) throw tooLarge();
  if (request.headers.expect !== undefined) response.writeContinue();
  const body = new GrowingBuffer(length, holdBytes);
  const stopWatching = endWhenIdle(request, bodyTimeoutMs);
  let stopTurns = (): void => undefined;
  let deadline: NodeJS.Timeout | undefined;
  let stopReading = (): void => undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      const onData = (chunk: Buffer): void => {
        try {
          if (body.size + chunk.length > maxManifestBytes) throw tooLarge();
          body.append(chunk);
        } catch (error) {
          reject(error);
        } finally {
          freeMemory(chunk);
        }
      };
      const onGone = (error?: Error): void =>
        reject(new ClientGone(String(error ?? "the client closed the connection")));
      stopReading = () => request.off("data", onData).off("close", onGone);
      deadline = setTimeout(() => reject(tooSlow(manifestTimeoutMs)), manifestTimeoutMs);
      request.once("end", resolve).once("error", onGone).once("close", onGone).on("data", onData);
      stopTurns = manifestTurns.enter(request);
      if (request.destroyed) onGone();
    });
  } catch (error) {
    body.free();
    throw error;
  } finally {
    clearTimeout(deadline);
    stopTurns();
    stopWatching();
    stopReading();
  }
  return body.contents();
}

/** The memory that a body begins with. Most manifests are smaller. */
const firstCapacityBytes = 4 * 1024;

/**
 * One piece of memory that grows with what it holds. Chunks as they come would cost a hundred bytes each, and a client
 * may send a byte in each of them.
 */
class GrowingBuffer {
  readonly #maxBytes: number;
  readonly #onGrow: (bytes: number) => void;
  #memory = Buffer.alloc(0);
  size = 0;

  /**
   * @param maxBytes what it holds at most
   * @param onGrow is told of further bytes before they are taken; what it throws keeps them from being taken
   */
  constructor(maxBytes: number, onGrow: (bytes: number) => void) {
    this.#maxBytes = maxBytes;
    this.#onGrow = onGrow;
  }

  append(chunk: Buffer): void {
    const wanted = this.size + chunk.length;
    if (wanted > this.#memory.length) this.#growTo(wanted);
    chunk.copy(this.#memory, this.size);
    this.size = wanted;
  }

  /** What it holds, without a copy. */
  contents(): Buffer {
    return this.#memory.subarray(0, this.size);
  }

  #growTo(wanted: number): void {
    const doubled = Math.max(firstCapacityBytes, 2 * this.#memory.length);
    const capacity = Math.max(wanted, Math.min(doubled, this.#maxBytes));
    this.#onGrow(capacity - this.#memory.length);
    const larger = Buffer.allocUnsafeSlow(capacity);
    this.#memory.copy(larger, 0, 0, this.size);
    freeMemory(this.#memory);
    this.#memory = larger;
  }

  /** Frees what it holds, of which nobody may have taken `contents`. */
  free(): void {
    freeMemory(this.#memory);
    this.#memory = Buffer.alloc(0);
    this.size = 0;
  }
}

const tooSlow = (timeoutMs: number): RegistryError =>
  new RegistryError(
    408,
    "SIZE_INVALID",
    `this manifest did not arrive within ${Math.ceil(timeoutMs / 1000)} seconds`,
    { detail: "all of it has to come in that time: push it again over a faster connection" },
  );

const tooLarge = (): RegistryError =>
  new RegistryError(413, "SIZE_INVALID", "this manifest is larger than 8 MiB", {
    detail: "registries take manifests of up to 4 MiB",
  });
