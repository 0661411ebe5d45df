import { once } from "node:events";
import { chmod, chown, lstat, mkdtemp, rename, rm, unlink } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { dirname, join } from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { errorCode, unless } from "../error-code.ts";
import type { Log } from "../log.ts";

/** What serves gRPC on a Unix socket. */
export interface SocketServerOptions {
  /** The absolute path of the socket. Its folder has to exist. */
  readonly socketPath: string;
  readonly addServices: (server: Server) => void;
  /** How long, in milliseconds, calls in flight may take once the server is stopped. */
  readonly graceMs: number;
  /** The user who can open the socket; the one who runs this process unless given. */
  readonly uid?: number;
  readonly log: Log;
}

/** How many connections a user can have at a socket of their own, and calls on each. Those beyond are closed, or wait. */
const userBounds = { connections: 16, calls: 8, requestBytes: 1024 * 1024 };

/** How often it is looked whether the socket is still there. */
const placeCheckMs = 1_000;

/** A running server. */
export interface SocketServer {
  /** Removes the socket, waits for calls in flight, and cancels those that outlast the grace period. */
  readonly stop: () => Promise<void>;
}

/**
 * Serves gRPC on a Unix socket that only one user can open, and root. During an update the next process puts its own
 * socket there. If that process ends and this one goes on, since the update was taken back, the socket is placed again.
 * @throws Error where the socket can't be placed
 */
export async function serveOnSocket(options: SocketServerOptions): Promise<SocketServer> {
  const { socketPath, uid, log } = options;
  const { server, listen, close } = uid === undefined ? createOwnServer() : createUserServer();
  options.addServices(server);
  let socket = await placeSocket(socketPath, listen, uid).catch((error: unknown) => {
    close();
    server.forceShutdown();
    throw error;
  });
  let hasFailed = false;
  const keepPlace = async (): Promise<void> => {
    try {
      if ((await socket.isPlaced()) || (await isListening(socketPath))) return;
      socket = await placeSocket(socketPath, listen, uid);
      const message = "nobody listened on the socket any more, and it was placed again";
      log("warning", message, { file: socketPath });
      hasFailed = false;
    } catch (error) {
      if (!hasFailed) log("error", "the socket can't be placed again", { file: socketPath, error });
      hasFailed = true;
    }
  };
  let check: Promise<void> = Promise.resolve();
  const timer = setInterval(() => {
    check = check.then(keepPlace);
  }, placeCheckMs).unref();
  return {
    async stop() {
      clearInterval(timer);
      await check;
      await socket.remove();
      close();
      const end = setTimeout(() => server.forceShutdown(), options.graceMs);
      await new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
      clearTimeout(end);
    },
  };
}

/** A gRPC server, and what lets it listen on a path. */
interface ListeningServer {
  readonly server: Server;
  readonly listen: (path: string) => Promise<void>;
  /** Takes no more connections. */
  readonly close: () => void;
}

function createOwnServer(): ListeningServer {
  const server = new Server();
  const listen = (path: string) =>
    new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix:${path}`, ServerCredentials.createInsecure(), (error) =>
        error === null ? resolve() : reject(error),
      );
    });
  return { server, listen, close: () => undefined };
}

/** grpc-js itself takes any number of connections, so a listener in front of it counts those of a user. */
function createUserServer(): ListeningServer {
  const server = new Server({
    "grpc.max_concurrent_streams": userBounds.calls,
    "grpc.max_receive_message_length": userBounds.requestBytes,
  });
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const listener = createServer((connection) => injector.injectConnection(connection));
  listener.maxConnections = userBounds.connections;
  return {
    server,
    async listen(path) {
      if (listener.listening) await new Promise((resolve) => listener.close(resolve));
      listener.listen(path);
      await once(listener, "listening");
    },
    close: () => void listener.close(),
  };
}

/** The bytes of `sun_path` without the NUL at its end, by unix(7). */
const maxPathBytes = 107;

/** A listening socket in its place in the file system. */
export interface SocketFile {
  /** Whether it is still there. */
  readonly isPlaced: () => Promise<boolean>;
  /** Removes the socket, unless another process has put its own there in the meantime. */
  readonly remove: () => Promise<void>;
}

/** Whether a process listens on a socket. What a killed process has left is a socket that refuses. */
async function isListening(path: string): Promise<boolean> {
  const socket = connect(path);
  try {
    await once(socket, "connect");
    return true;
  } catch (error) {
    return !["ENOENT", "ECONNREFUSED"].includes(String(errorCode(error)));
  } finally {
    socket.destroy();
  }
}

/**
 * Listens under a temporary name and moves the socket into its place. The place is therefore never empty, a previous
 * listener is replaced, nobody but this user can ever connect, and closing the listener is harmless: Node and
 * grpc-js unlink the path that they bound, even where another process listens there by then.
 * @param path where the socket goes
 * @param listen binds the path that it is given
 * @param uid the user who can connect beside root; the one who runs this process unless given
 * @throws Error where the folder is missing, or something other than a socket is at the path
 */
export async function placeSocket(
  path: string,
  listen: (path: string) => Promise<unknown>,
  uid?: number,
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
    if (uid !== undefined) await chown(own, uid, 0);
    const { dev, ino } = await lstat(own);
    await rename(own, path);
    const isPlaced = async (): Promise<boolean> => {
      const now = await lstat(path).catch(unless(undefined, "ENOENT"));
      return now?.dev === dev && now.ino === ino;
    };
    return {
      isPlaced,
      async remove() {
        if (await isPlaced()) await unlink(path);
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
