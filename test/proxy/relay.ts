import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Stoppable } from "../support/cleanup.ts";

/** A TCP relay in front of a server: what passes it can be looked at, and slowed. */
export interface Relay extends Stoppable {
  /** `127.0.0.1:34567` */
  readonly host: string;
  /** Everything that has gone to clients; nothing where it is not remembered. */
  toClients(): Buffer;
  stop(): Promise<void>;
}

export interface RelayOptions {
  /** `127.0.0.1:34567` */
  readonly to: string;
  readonly remember?: boolean;
  /** For what clients send, each connection by itself. */
  readonly bytesPerSecond?: number;
}

export async function startRelay({ to, remember, bytesPerSecond }: RelayOptions): Promise<Relay> {
  const [host = "", port = ""] = to.split(":");
  const chunks: Buffer[] = [];
  const sockets = new Set<Socket>();
  const keep = (socket: Socket): Socket => {
    sockets.add(socket);
    return socket.on("error", () => {}).once("close", () => sockets.delete(socket));
  };
  const server = createServer((client) => {
    keep(client);
    const upstream = keep(connect(Number(port), host));
    upstream.pipe(client);
    if (remember) upstream.on("data", (chunk: Buffer) => chunks.push(chunk));
    if (bytesPerSecond === undefined) client.pipe(upstream);
    else void passSlowly(client, upstream, bytesPerSecond);
    client.once("close", () => upstream.destroy());
    upstream.once("close", () => client.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    toClients: () => Buffer.concat(chunks),
    stop: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

async function passSlowly(from: Socket, to: Socket, bytesPerSecond: number): Promise<void> {
  const start = performance.now();
  let passed = 0;
  try {
    for await (const chunk of from) {
      to.write(chunk);
      passed += chunk.length;
      const due = start + (passed / bytesPerSecond) * 1000;
      const early = due - performance.now();
      if (early > 5) await sleep(early);
    }
    to.end();
  } catch {
    to.destroy();
  }
}
