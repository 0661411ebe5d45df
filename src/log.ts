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
  readonly image?: string | undefined;
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

/** Whose request has caused a line. */
export interface LineIdentity {
  /** Identifies the Pod or the volume. */
  readonly subject: string;
  readonly user: string;
  readonly pod?: { readonly namespace: string; readonly name: string };
}

/** Who has caused a line: the holder of a token, or a request without an identity. */
export type LineOrigin = LineIdentity | "stranger";

/**
 * Writes one line of the log. It never throws.
 * @param message a whole clause with its subject: "the watch of Connectors failed"
 * @param origin whose request it is about; undefined for what this process does of itself. It decides which lines are left
 *   out when there are too many, and is not written
 * @example
 * log("warning", "the certificate of the registry expires soon", { connector: "team-a/harbor" });
 */
export type Log = (
  level: LogLevel,
  message: string,
  fields?: LogFields,
  origin?: LineOrigin,
) => void;

/**
 * Makes a log of JSON lines: `time`, `level`, `message`, then the fields.
 * @param write takes a line with its line feed
 * @param now milliseconds since 1970
 */
export function createLog(
  write: (line: string, origin: LineOrigin | undefined) => void,
  now: () => number,
): Log {
  return (level, message, fields, origin) => {
    const time = new Date(now()).toISOString();
    const error = fields?.error === undefined ? undefined : tryToDescribe(fields.error);
    write(`${JSON.stringify({ time, level, message, ...fields, error })}\n`, origin);
  };
}

/** An error may have causes in a circle, or a message that throws; the log doesn't. */
function tryToDescribe(error: unknown): string {
  try {
    return describeError(error);
  } catch {
    return "an error that can't be described";
  }
}

/**
 * Shows an error and its causes by name, code and message: `TypeError: …, caused by Error ECONNREFUSED: …`. A code that
 * the message has, as the system's errors do, is not told twice. It has no stack and no other properties, which may hold requests.
 */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const given = "code" in error ? error.code : "";
  const isTold = typeof given === "string" && error.message.includes(given);
  const code = isTold ? "" : ` ${String(given)}`;
  const cause = error.cause === undefined ? "" : `, caused by ${describeError(error.cause)}`;
  return `${error.name}${code}: ${error.message}${cause}`;
}
