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
  /** Only its names, codes and messages are written, and those of its causes. */
  readonly error?: unknown;
}

export type Level = "info" | "warning" | "error";

/** Writes one line of the log. */
export type Log = (level: Level, message: string, fields?: LogFields) => void;

/** A log of JSON lines: `time`, `level`, `message`, then the fields. */
export function createLog(write: (line: string) => void, now: () => Date): Log {
  return (level, message, fields) => {
    const time = now().toISOString();
    const error = fields?.error === undefined ? undefined : describeError(fields.error);
    write(`${JSON.stringify({ time, level, message, ...fields, error })}\n`);
  };
}

/**
 * The log of this process. Lines of one turn of the event loop are written together, since a system call
 * for each costs a busy proxy more than the lines do. None is lost where the process exits or dies of an
 * exception; a signal that nobody handles may take those of its turn along.
 */
export function createProcessLog(write: (text: string) => void = writeToStderr): Log {
  let pending = "";
  const flush = (): void => {
    const text = pending;
    pending = "";
    if (text !== "") write(text);
  };
  process.on("exit", flush);
  const keep = (line: string): void => {
    if (pending === "") setImmediate(flush);
    pending += line;
  };
  return createLog(keep, () => new Date());
}

const stderr = 2;
const asleep = new Int32Array(new SharedArrayBuffer(4));

/** Waits for a slow reader of a pipe: process.stderr would keep without bound what is not read, and lose it at an exit. */
function writeToStderr(text: string): void {
  let rest = Buffer.from(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(stderr, rest));
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) throw error;
      Atomics.wait(asleep, 0, 0, 5); // somebody has made the pipe a non-blocking one
    }
  }
}

/** `TypeError: …, caused by Error ECONNREFUSED: …`: no stack and no properties, which may hold requests. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = "code" in error ? ` ${String(error.code)}` : "";
  const cause = error.cause === undefined ? "" : `, caused by ${describeError(error.cause)}`;
  return `${error.name}${code}: ${error.message}${cause}`;
}
