import { chmod, lstat, mkdtemp, rename, rm, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { unless } from "../error-code.ts";

/** What serves gRPC on a Unix socket. */
export interface SocketServerOptions {
  /** The absolute path of the socket. Its folder has to exist. */
  readonly socketPath: string;
  readonly addServices: (server: Server) => void;
  /** How long, in milliseconds, calls in flight may take once the server is stopped. */
  readonly graceMs: number;
}

/** A running server. */
export interface SocketServer {
  /** Removes the socket, waits for calls in flight, and cancels those that outlast the grace period. */
  readonly stop: () => Promise<void>;
}

/**
 * Serves gRPC on a Unix socket that only this process's user can open.
 * @throws Error where the socket can't be placed
 */
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
      const timer = setTimeout(() => server.forceShutdown(), options.graceMs);
      await new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
      clearTimeout(timer);
    },
  };
}

/** The bytes of `sun_path` without the NUL at its end, by unix(7). */
const maxPathBytes = 107;

/** A listening socket in its place in the file system. */
export interface SocketFile {
  /** Removes the socket, unless another process has put its own there in the meantime. */
  readonly remove: () => Promise<void>;
}

/**
 * Listens under a temporary name and moves the socket into its place. The place is therefore never empty, a previous
 * listener is replaced, nobody but this user can ever connect, and closing the listener is harmless: Node and
 * grpc-js unlink the path that they bound, even where another process listens there by then.
 * @param path where the socket goes
 * @param listen binds the path that it is given
 * @throws Error where the folder is missing, or something other than a socket is at the path
 */
export async function placeSocket(
  path: string,
  listen: (path: string) => Promise<unknown>,
): Promise<SocketFile> {
  await checkSocketPlace(path);
  // The leading dot keeps the kubelet's plugin watcher away.
  const folder = await mkdtemp(`${dirname(path)}/.`).catch((error: unknown) => {
    throw new Error(
      `${path}: can't create a socket there; check that its folder exists and is writable`,
      {
        cause: error,
      },
    );
  });
  try {
    const own = join(folder, "s");
    await listen(own);
    await chmod(own, 0o600);
    const { dev, ino } = await lstat(own);
    await rename(own, path);
    return {
      async remove() {
        const now = await lstat(path).catch(unless(undefined, "ENOENT"));
        if (now?.dev === dev && now.ino === ino) await unlink(path);
      },
    };
  } finally {
    await rm(folder, { recursive: true });
  }
}

/**
 * Checks that a socket can be placed at a path, before anything is made. A folder that is missing yet is no mistake.
 * @throws Error where the path is too long, or something other than a socket is there
 */
export async function checkSocketPlace(path: string): Promise<void> {
  const length = Math.max(
    Buffer.byteLength(path),
    Buffer.byteLength(dirname(path)) + "/.XXXXXX/s".length,
  );
  if (length > maxPathBytes) {
    throw new Error(`${path}: found a path of ${length} bytes, wanted ${maxPathBytes} at most`);
  }
  const present = await lstat(path).catch(unless(undefined, "ENOENT"));
  if (present !== undefined && !present.isSocket()) {
    throw new Error(`${path}: found something that is not a socket, wanted nothing: remove it`);
  }
}
