/** The bodies of requests that have their response already: they are read on for a while, and thrown away. */
import type { IncomingMessage } from "node:http";
import type { Identity } from "../../connector/platform.ts";
import { freeMemory } from "../../upstream/http-client/body-buffers.ts";
import { BodyTurns } from "./request-body.ts";

/** A client that is still sending has so long to notice its response. */
const patienceMs = 10_000;

/** So many of such bodies are read on at a time. Each holds what was read of it and waits for its turn: up to 80 KiB. */
const maxBodies = 128;

/** Reads on what clients still send after their response: a closed connection would make them lose the response. */
export interface RefusedBodies {
  /**
   * Reads a request's body to its end, where it has not come yet.
   * @param sender undefined where nobody has shown a valid token; then it is whoever has the client's address
   */
  readOn(request: IncomingMessage, sender: Pick<Identity, "subject"> | undefined): void;
}

/**
 * Creates what all listeners of a proxy share. Where there would be too many bodies, the oldest one of the sender with
 * the most is ended together with its connection, so nobody else loses a response.
 * @param shed is told that a connection was ended for that
 */
export function createRefusedBodies(shed: () => void): RefusedBodies {
  const turns = new BodyTurns(1);
  const senders = new Map<string, Set<IncomingMessage>>();
  let count = 0;

  const remove = (request: IncomingMessage, sender: string): void => {
    const own = senders.get(sender);
    if (own?.delete(request) !== true) return;
    if (own.size === 0) senders.delete(sender);
    count -= 1;
  };
  const endOne = (): void => {
    let largest: readonly [sender: string, requests: ReadonlySet<IncomingMessage>] | undefined;
    for (const entry of senders) {
      if (largest === undefined || entry[1].size > largest[1].size) largest = entry;
    }
    if (largest === undefined) return;
    const [sender, [oldest]] = largest;
    if (oldest === undefined) return;
    shed();
    remove(oldest, sender); // its `close` comes later, and it must not be chosen twice
    freeUnread(oldest);
    oldest.destroy();
  };
  return {
    readOn(request, identity) {
      if (request.complete || request.destroyed) return;
      const { socket } = request;
      const sender = identity?.subject ?? socket.remoteAddress ?? "";
      if (count >= maxBodies) endOne();
      const own = senders.get(sender) ?? new Set();
      senders.set(sender, own.add(request));
      count += 1;
      const timer = setTimeout(() => request.destroy(), patienceMs);
      const stop = (): void => {
        clearTimeout(timer);
        remove(request, sender);
        freeUnread(request);
        socket.off("close", stop);
      };
      request.once("close", stop);
      socket.once("close", stop); // after its response, a request is not told that its client has gone
      request.unpipe();
      freeUnread(request);
      request.on("data", freeMemory);
      turns.enter(request);
      request.resume();
    },
  };
}

/** Frees what has come of a body and was not read, of which the garbage collector would notice too late. */
function freeUnread(request: IncomingMessage): void {
  const unread: Buffer | null = request.read();
  if (unread !== null) freeMemory(unread);
}
