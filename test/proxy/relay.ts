import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import type { Stoppable } from "../support/cleanup.ts";

/** A TCP relay in front of a server, which remembers what clients get to see. */
export interface Relay extends Stoppable {
  /** `127.0.0.1:34567` */
  readonly host: string;
  /** Everything that has gone to clients. */
  toClients(): Buffer;
  stop(): Promise<void>;
}

/** @param to `127.0.0.1:34567` */
export async function startRelay(to: string): Promise<Relay> {
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
