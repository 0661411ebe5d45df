import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { UpstreamError } from "../../upstream/upstream-error.ts";
import { ClientGone } from "../client-gone.ts";

/** Clients give up after 30 s without a head (containerd). */
const totalWaitMs = 20_000;
/** A server that says "now" is given a moment all the same. */
const minDelayMs = 250;

/** How long a client's request may be held up by servers that ask to be left alone for a while. */
export class Patience {
  readonly #response: ServerResponse;
  readonly #deadline = performance.now() + totalWaitMs;

  constructor(response: ServerResponse) {
    this.#response = response;
  }

  /**
   * Attempts something that has no effect where a server is busy, until it is not.
   * @param delayMsOf how long this outcome asks to wait, undefined for one that is final
   * @returns the last outcome; where it would take too long, what the busy server has said
   * @throws ClientGone, and what the attempt throws in the end
   */
  async retry<T>(
    attempt: () => Promise<T>,
    delayMsOf: (outcome: T) => number | undefined = () => undefined,
  ): Promise<T> {
    for (;;) {
      const outcome = await attempt().catch(asBusy);
      const isError = outcome instanceof UpstreamError;
      const delayMs = isError ? outcome.retryAfterMs : delayMsOf(outcome);
      if (delayMs !== undefined && (await this.#wait(delayMs))) continue;
      if (isError) throw outcome;
      return outcome;
    }
  }

  /** @returns false at once where that would take too long */
  async #wait(requestedMs: number): Promise<boolean> {
    const delayMs = Math.max(requestedMs, minDelayMs);
    if (performance.now() + delayMs > this.#deadline) return false;
    await waitFor(delayMs, this.#response);
    return true;
  }
}

function asBusy(error: unknown): UpstreamError {
  const isBusy = error instanceof UpstreamError && error.fault === "ConnectionFailed";
  if (isBusy && error.retryAfterMs !== undefined) return error;
  throw error; // a refused login is not tried again by the client's own request
}

/**
 * Waits, as long as the client is there.
 * @throws ClientGone where it goes away before that
 */
export async function waitFor(delayMs: number, response: ServerResponse): Promise<void> {
  const signal = AbortSignal.timeout(delayMs);
  if (!response.destroyed) await once(response, "close", { signal }).catch(() => undefined);
  if (response.destroyed) throw new ClientGone("the client closed the connection");
}
