import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import type { Stoppable } from "./cleanup.ts";

/** A TCP relay in front of a server, which records every byte that the server sends to its clients. */
export interface TcpTap extends Stoppable {
  /** `127.0.0.1:34567` */
  readonly host: string;
  /** All bytes so far that have gone to clients. */
  toClients(): Buffer;
  stop(): Promise<void>;
}

/**
 * Starts a tap on a free port of loopback.
 * @param to the server: `127.0.0.1:34567`
 */
export async function startTcpTap(to: string): Promise<TcpTap> {
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
    upstream.on("data", (chunk: Buffer) => chunks.push(chunk));
    client.pipe(upstream);
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
