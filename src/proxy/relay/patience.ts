import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { UpstreamError } from "../../upstream/upstream-error.ts";
import { ClientGone } from "../client-gone.ts";

/** Clients give up after 30 s without a head (containerd). Milliseconds. */
const budget = 20_000;
/** Who says "now" is given a moment all the same. */
const shortest = 250;

/** How long a client's request may be held up by servers that ask to be left alone for a while. */
export class Patience {
  readonly #response: ServerResponse;
  readonly #deadline = performance.now() + budget;

  constructor(response: ServerResponse) {
    this.#response = response;
  }

  /**
   * Attempts something that has no effect where a server is busy, until it is not.
   * @param after milliseconds that this outcome asks to wait, undefined for one that is final
   * @returns the last outcome; where it would take too long, what the busy server has said
   * @throws ClientGone, and what the attempt throws in the end
   */
  async retry<T>(
    attempt: () => Promise<T>,
    after: (outcome: T) => number | undefined = () => undefined,
  ): Promise<T> {
    for (;;) {
      const outcome = await attempt().catch(busy);
      const isError = outcome instanceof UpstreamError;
      const delay = isError ? outcome.retryAfter : after(outcome);
      if (delay !== undefined && (await this.#wait(delay))) continue;
      if (isError) throw outcome;
      return outcome;
    }
  }

  async #wait(asked: number): Promise<boolean> {
    const delay = Math.max(asked, shortest);
    if (performance.now() + delay > this.#deadline) return false;
    await waitFor(delay, this.#response);
    return true;
  }
}

function busy(error: unknown): UpstreamError {
  if (error instanceof UpstreamError && error.retryAfter !== undefined) return error;
  throw error;
}

/** @throws ClientGone where the client goes away before that */
export async function waitFor(milliseconds: number, response: ServerResponse): Promise<void> {
  const signal = AbortSignal.timeout(milliseconds);
  if (!response.destroyed) await once(response, "close", { signal }).catch(() => undefined);
  if (response.destroyed) throw new ClientGone("the client closed the connection");
}
