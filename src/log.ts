import { writeSync } from "node:fs";

/**
 * Structured log lines. A field that is not named here can't be logged, so a token, a password or a
 * whole request never gets into a line by accident (CVE-2023-2878, CVE-2024-3744, CVE-2025-7445 are
 * drivers that logged what they were given).
 */
export interface LogFields {
  readonly address?: string | undefined;
  readonly bytesReceived?: number | undefined;
  readonly bytesSent?: number | undefined;
  readonly connector?: string | undefined;
  readonly connectors?: string | undefined;
  readonly count?: number | undefined;
  readonly decision?: string | undefined;
  readonly durationMs?: number | undefined;
  readonly file?: string | undefined;
  readonly host?: string | undefined;
  readonly method?: string | undefined;
  readonly pod?: string | undefined;
  readonly reason?: string | undefined;
  readonly reference?: string | undefined;
  readonly repository?: string | undefined;
  readonly signal?: string | undefined;
  readonly status?: number | undefined;
  readonly target?: string | undefined;
  readonly tokenExpired?: boolean | undefined;
  readonly upstreamStatus?: number | undefined;
  readonly user?: string | undefined;
  readonly verb?: string | undefined;
  readonly volume?: string | undefined;
  /** Its names, codes and messages are written, and those of its causes; nothing else that it carries. */
  readonly error?: unknown;
}

/** How much a line of the log matters. Nothing is filtered by it here. */
export type LogLevel = "info" | "warning" | "error";

/**
 * Writes one line of the log.
 * @param message a whole clause with its subject: "the watch of Connectors failed"
 * @example
 * log("warning", "the certificate of the registry expires soon", { connector: "team-a/harbor" });
 */
export type Log = (level: LogLevel, message: string, fields?: LogFields) => void;

/**
 * Makes a log of JSON lines: `time`, `level`, `message`, then the fields.
 * @param write takes a line with its line feed
 * @param now milliseconds since 1970
 */
export function createLog(write: (line: string) => void, now: () => number): Log {
  return (level, message, fields) => {
    const time = new Date(now()).toISOString();
    const error = fields?.error === undefined ? undefined : describeError(fields.error);
    write(`${JSON.stringify({ time, level, message, ...fields, error })}\n`);
  };
}

/**
 * Makes the log of this process. Lines of one turn of the event loop are written together, since a system call
 * for each costs a busy proxy more than the lines do. No line is lost where the process exits or dies of an
 * exception. A signal that nobody handles may lose the lines of its turn.
 */
export function createProcessLog(write: (text: string) => void = writeToStderr): Log {
  let pending = "";
  const flush = (): void => {
    const text = pending;
    pending = "";
    if (text !== "") write(text);
  };
  process.on("exit", flush);
  const append = (line: string): void => {
    if (pending === "") setImmediate(flush);
    pending += line;
  };
  return createLog(append, Date.now);
}

/** The file descriptor. */
const stderr = 2;
const retryWriteMs = 5;
/** Nobody wakes those who wait for it: `Atomics.wait` is the one way to sleep without the event loop. */
const neverWoken = new Int32Array(new SharedArrayBuffer(4));

/** Writes at once, and waits for a slow reader of a pipe. process.stderr would keep without bound what is not read, and lose it at an exit. */
function writeToStderr(text: string): void {
  let rest = Buffer.from(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(stderr, rest));
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) throw error;
      Atomics.wait(neverWoken, 0, 0, retryWriteMs); // the pipe is a non-blocking one, and full
    }
  }
}

/**
 * Shows an error and its causes by name, code and message: `TypeError: …, caused by Error ECONNREFUSED: …`. It has no
 * stack and no other properties, which may hold requests.
 */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = "code" in error ? ` ${String(error.code)}` : "";
  const cause = error.cause === undefined ? "" : `, caused by ${describeError(error.cause)}`;
  return `${error.name}${code}: ${error.message}${cause}`;
}
