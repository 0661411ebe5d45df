/**
 * Responses that come before a request's body is written. A registry that refuses an upload by its size or its login often
 * answers, and closes its connection without reading the rest (413, 401, 429). What it said has arrived by then, but the
 * next write fails, and Node would destroy the socket, with what is not read yet.
 */
import type { Agent } from "node:http";
import { Socket } from "node:net";

/** A socket whose other side is gone says so while it is read, nearly at once. */
const maxDelayMs = 2_000;
const closedCodes: ReadonlySet<string | undefined> = new Set(["ECONNRESET", "EPIPE"]);

type WriteCallback = (error?: (Error & { readonly code?: string }) | null) => void;

/**
 * Has a socket report a write that the other side did not take any more only once all that has arrived is read, which ends
 * with the socket's own end or error.
 */
export function delayWriteErrors(socket: Socket): void {
  const write = socket._write.bind(socket);
  const writeMany = socket._writev?.bind(socket);
  const delayed =
    (callback: WriteCallback): WriteCallback =>
    (error) => {
      if (!closedCodes.has(error?.code)) return callback(error);
      const report = (): void => {
        clearTimeout(timer);
        socket.off("end", report).off("close", report);
        callback(error);
      };
      const timer = setTimeout(report, maxDelayMs);
      socket.once("end", report).once("close", report);
      return undefined;
    };
  socket._write = (chunk, encoding, callback) => write(chunk, encoding, delayed(callback));
  if (writeMany !== undefined) {
    socket._writev = (chunks, callback) => writeMany(chunks, delayed(callback));
  }
}

/** Has all connections of an agent of node:http delay the errors of their writes. */
export function delayAgentWriteErrors<T extends Agent>(agent: T): T {
  const connect = agent.createConnection.bind(agent);
  agent.createConnection = (options, callback) => {
    const socket = connect(options, callback);
    if (socket instanceof Socket) delayWriteErrors(socket);
    return socket;
  };
  return agent;
}
