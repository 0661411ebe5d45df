import type { Socket } from "node:net";
import type { Writable } from "node:stream";
import { TLSSocket } from "node:tls";
import { freeMemory } from "../../upstream/http-client/free-memory.ts";

/** Connections that carry bytes of which the proxy understands nothing. */
export interface BlindTunnels {
  /** Joins two connections; either one's end is the other's. */
  join(client: Socket, remote: Socket): void;
  /** Ends those that are silent, and the others once they are. */
  finish(): void;
}

/** Milliseconds without a byte in either direction after which nobody is expected to speak again. */
const idleTimeoutMs = 60 * 60 * 1000;
/** The same once one side has said that it is through: the other one may be at work on its answer. */
const halfClosedTimeoutMs = 10 * 60 * 1000;
/** The kernel asks after that many milliseconds of silence whether the other side is still there. */
const keepAliveDelayMs = 60_000;
/** @param quietMs milliseconds after which a tunnel counts as silent while the process ends */
export function createBlindTunnels(quietMs = 5_000): BlindTunnels {
  const clients = new Map<Socket, Socket>();
  const transferred = ([client, remote]: readonly [Socket, Socket]): number =>
    client.bytesRead + remote.bytesRead;
  return {
    join(client, remote) {
      clients.set(client, remote);
      client.once("close", () => clients.delete(client));
      for (const socket of [client, remote]) socket.setKeepAlive(true, keepAliveDelayMs);
      // Bytes of both directions pass here, so one timer will do.
      client.setTimeout(idleTimeoutMs, () => client.destroy());
      carry(client, remote);
      carry(remote, client);
      const onHalfClosed = (): void => void client.setTimeout(halfClosedTimeoutMs);
      client.once("end", onHalfClosed);
      remote.once("end", onHalfClosed);
    },
    finish() {
      let before = new Map([...clients].map((pair) => [pair[0], transferred(pair)]));
      const timer = setInterval(() => {
        for (const pair of clients) {
          if (before.get(pair[0]) === transferred(pair)) pair[0].destroy();
        }
        before = new Map([...clients].map((pair) => [pair[0], transferred(pair)]));
        if (clients.size === 0) clearInterval(timer);
      }, quietMs);
      if (clients.size === 0) clearInterval(timer);
    },
  };
}

/** One direction: bytes, held back while the other side is slower, and the end. */
function carry(from: Socket, to: Socket): void {
  from.on("data", (chunk: Buffer) => {
    if (!writeAndFree(to, chunk)) from.pause();
  });
  to.on("drain", () => from.resume());
  from.once("end", () => to.end());
  from.once("close", () => endWith(from, to));
  from.on("error", () => undefined); // `close` follows
  from.resume();
}

/**
 * Writes a chunk that nobody looks at any more, and frees its memory once it is out.
 * @returns false where the next chunk should wait for `drain`
 */
export const writeAndFree = (to: Writable, chunk: Buffer): boolean =>
  to.write(chunk, () => freeMemory(chunk));

/** A connection that was cut cuts the other one, and does not just end it: what came may not be all. */
function endWith(closed: Socket, other: Socket): void {
  if (closed.readableEnded) other.destroySoon();
  else if (other instanceof TLSSocket) other.destroy();
  else other.resetAndDestroy();
}
