import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Stoppable } from "./cleanup.ts";
import { eventually } from "./eventually.ts";

/** Where to connect to. */
export interface RawTarget {
  /** Loopback unless said otherwise. */
  readonly host?: string;
  readonly port: number;
  /** Speak TLS, trusting this authority (PEM) alone. */
  readonly ca?: string;
  readonly servername?: string;
}

/** A connection over which a test sends exactly the bytes that it wants. */
export interface RawConnection extends Stoppable {
  send(bytes: string | Buffer): void;
  /** Everything that has come so far, a character for a byte. */
  received(): string;
  /** Waits until what has come matches; rejects where the server closes before that, or takes too long. */
  waitFor(pattern: RegExp, timeout?: number): Promise<string>;
  /** Settles when the other side has closed, with or without an error. */
  readonly closed: Promise<void>;
  /** Says that nothing more will be sent, and stays open for the answer. */
  end(): void;
  /** Ends the connection with an RST. */
  reset(): void;
  /** Goes on with TLS, after a CONNECT. The former connection must not be used any more. */
  startTls(options: { readonly ca: string; readonly servername: string }): Promise<RawConnection>;
  stop(): void;
}

export async function openRaw({
  host = "127.0.0.1",
  port,
  ca,
  servername,
}: RawTarget): Promise<RawConnection> {
  const socket =
    ca === undefined
      ? connect({ host, port })
      : connectTls({ host, port, ca, ...(servername !== undefined && { servername }) });
  await established(socket, ca === undefined ? "connect" : "secureConnect");
  return wrap(socket);
}

const established = (socket: Socket, event: string): Promise<void> =>
  new Promise((resolve, reject) => {
    socket.once(event, resolve).once("error", reject);
  });

function wrap(socket: Socket): RawConnection {
  const chunks: Buffer[] = [];
  let isClosed = false;
  const listener = (chunk: Buffer): void => void chunks.push(chunk);
  socket.on("data", listener).on("error", () => {});
  const closed = new Promise<void>((resolve) => {
    const finish = (): void => {
      isClosed = true;
      resolve();
    };
    socket.once("end", finish).once("close", finish);
  });
  const received = (): string => Buffer.concat(chunks).toString("latin1");
  return {
    received,
    closed,
    send: (bytes) => void socket.write(bytes),
    end: () => void socket.end(),
    reset: () => void socket.resetAndDestroy(),
    stop: () => void socket.destroy(),
    waitFor: (pattern, timeout) =>
      eventually(
        () => {
          const wasClosed = isClosed;
          if (pattern.test(received())) return received();
          if (wasClosed) throw new Error(`closed before ${pattern}: ${received()}`);
          return undefined;
        },
        () => `no ${pattern} in ${received()}`,
        timeout,
      ),
    async startTls({ ca, servername }) {
      socket.off("data", listener);
      const secure = connectTls({ socket, ca, servername });
      await established(secure, "secureConnect");
      return wrap(secure);
    },
  };
}

/** All that a server answers, and whether it closed the connection by itself. */
export interface RawAnswer {
  readonly text: string;
  readonly closed: boolean;
}

/**
 * Sends the bytes over a connection of their own and reads until the server closes it, so that a
 * request should say `Connection: close`; or until `timeout` milliseconds have passed.
 */
export async function rawRequest(
  target: RawTarget,
  bytes: string | Buffer,
  { timeout = 5000 }: { readonly timeout?: number } = {},
): Promise<RawAnswer> {
  const connection = await openRaw(target);
  try {
    connection.send(bytes);
    let timer: NodeJS.Timeout | undefined;
    const tooLong = new Promise<boolean>((resolve) => {
      timer = setTimeout(resolve, timeout, false);
    });
    const closed = await Promise.race([connection.closed.then(() => true), tooLong]);
    clearTimeout(timer);
    return { text: connection.received(), closed };
  } finally {
    connection.stop();
  }
}

/** The status codes of all responses in a text, interim ones (1xx) too. */
export const statusesIn = (text: string): number[] =>
  [...text.matchAll(/HTTP\/1\.[01] (\d{3}) /g)].map(([, code]) => Number(code));
