/**
 * Structured log lines. A field that is not named here can't be logged, so a token, a password or a
 * whole request never gets into a line by accident (CVE-2023-2878, CVE-2024-3744, CVE-2025-7445 are
 * drivers that logged what they were given).
 */
export interface LogFields {
  readonly address?: string;
  readonly bytesReceived?: number;
  readonly bytesSent?: number;
  readonly connector?: string;
  readonly connectors?: string;
  readonly count?: number;
  readonly decision?: string;
  readonly durationMs?: number;
  readonly file?: string;
  readonly host?: string;
  readonly method?: string;
  readonly pod?: string;
  readonly reason?: string;
  readonly reference?: string;
  readonly repository?: string;
  readonly signal?: string;
  readonly status?: number;
  readonly target?: string;
  readonly upstreamStatus?: number;
  readonly user?: string;
  readonly verb?: string;
  readonly volume?: string;
  /** Only its names, codes and messages are written, and those of its causes. */
  readonly error?: unknown;
}

export type Level = "info" | "warning" | "error";

/** Writes one line of the log. */
export type Log = (level: Level, message: string, fields?: LogFields) => void;

/** A log of JSON lines: `time`, `level`, `message`, then the fields. */
export function createLog(write: (line: string) => void, now: () => Date): Log {
  return (level, message, { error, ...fields } = {}) => {
    const line = {
      time: now().toISOString(),
      level,
      message,
      ...fields,
      ...(error === undefined ? {} : { error: describeError(error) }),
    };
    write(`${JSON.stringify(line)}\n`);
  };
}

/** `TypeError: …, caused by Error ECONNREFUSED: …`: no stack and no properties, which may hold requests. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = "code" in error ? ` ${String(error.code)}` : "";
  const cause = error.cause === undefined ? "" : `, caused by ${describeError(error.cause)}`;
  return `${error.name}${code}: ${error.message}${cause}`;
}
