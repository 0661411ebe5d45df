import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { eventually } from "../test/support/eventually.ts";

/** For programs that can't choose a port themselves. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** Waits until somebody takes connections there. @param output what the program has said, for when nobody does */
export async function listens(port: number, output: () => string): Promise<void> {
  await eventually(
    () => isListening(port),
    () => `nobody listens at port ${port}: ${output()}`,
  );
}

async function isListening(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
