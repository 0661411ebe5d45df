import { Server, ServerCredentials } from "@grpc/grpc-js";
import { placeSocket } from "./socket-file.ts";

export interface SocketServerOptions {
  /** Absolute; its folder has to be there. */
  readonly socketPath: string;
  readonly addServices: (server: Server) => void;
  /** How long, in milliseconds, calls in flight may take once the server is stopped. */
  readonly gracePeriod: number;
}

export interface SocketServer {
  /** Takes no new calls, waits for those in flight and ends what is still there after the grace period. */
  readonly stop: () => Promise<void>;
}

/** Serves gRPC on a Unix socket that only this process's user can open. */
export async function serveOnSocket(options: SocketServerOptions): Promise<SocketServer> {
  const server = new Server();
  options.addServices(server);
  const listen = (path: string) =>
    new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix:${path}`, ServerCredentials.createInsecure(), (error) =>
        error === null ? resolve() : reject(error),
      );
    });
  const socket = await placeSocket(options.socketPath, listen).catch((error: unknown) => {
    server.forceShutdown();
    throw error;
  });
  return {
    async stop() {
      await socket.remove();
      const timer = setTimeout(() => server.forceShutdown(), options.gracePeriod);
      await new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
      clearTimeout(timer);
    },
  };
}
