import type { Server } from "node:http";
import type { Socket } from "node:net";

/**
 * Lets nobody take all of a server's connections: further ones from an address that has so many are ended. Requests are
 * counted by who asks; connections that ask nothing have only an address. Pods have one each, unless the
 * network hides them behind their node, so it is a generous number.
 */
export function limitConnections(server: Server, mostPerAddress: number): void {
  const open = new Map<string, number>();
  server.prependListener("connection", (socket: Socket) => {
    const address = socket.remoteAddress ?? "";
    const before = open.get(address) ?? 0;
    if (before >= mostPerAddress) {
      socket.destroy();
      return;
    }
    open.set(address, before + 1);
    socket.once("close", () => {
      const left = (open.get(address) ?? 1) - 1;
      if (left > 0) open.set(address, left);
      else open.delete(address);
    });
  });
}
