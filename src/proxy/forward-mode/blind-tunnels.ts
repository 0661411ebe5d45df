import type { Socket } from "node:net";
import type { Writable } from "node:stream";
import { TLSSocket } from "node:tls";
import { freeMemory } from "../../upstream/http-client/body-buffers.ts";

/** Tunnels to other hosts, whose bytes the proxy does not look at. */
export interface BlindTunnels {
  /** Joins two connections into a tunnel: each gets the bytes of the other one, and its end. */
  join(client: Socket, remote: Socket): void;
  /** Ends the tunnels that are silent, and each other one once it is. */
  finish(): void;
}

/** A tunnel without a byte in either direction for so long is ended. */
const idleTimeoutMs = 60 * 60 * 1000;
/** The idle timeout once one side has ended: the other side may still be working on its response. */
const halfClosedTimeoutMs = 10 * 60 * 1000;
/** The kernel sends a TCP keep-alive probe after so long without a byte. */
const keepAliveDelayMs = 60_000;

/**
 * Creates the tunnels of a proxy, none at first.
 * @param quietMs how long a tunnel carries no byte before it counts as silent in `finish`
 */
export function createBlindTunnels(quietMs = 5_000): BlindTunnels {
  const clients = new Map<Socket, Socket>();
  const transferred = ([client, remote]: readonly [Socket, Socket]): number =>
    client.bytesRead + remote.bytesRead;
  return {
    join(client, remote) {
      clients.set(client, remote);
      client.once("close", () => clients.delete(client));
      for (const socket of [client, remote]) socket.setKeepAlive(true, keepAliveDelayMs);
      // The client's socket carries the bytes of both directions, so one timer is enough.
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

/** Carries one direction: its bytes, held back while the other side is slower, and its end. */
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

/** Ends a connection as its other one has ended. A connection that was cut resets the other one, since bytes may be missing. */
function endWith(closed: Socket, other: Socket): void {
  if (closed.readableEnded) other.destroySoon();
  else if (other instanceof TLSSocket) other.destroy();
  else other.resetAndDestroy();
}
