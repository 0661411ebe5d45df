/**
 * Reads the Retry-After of a response (RFC 9110, section 10.2.3): seconds, or a date.
 * @param nowMs milliseconds since 1970
 * @returns milliseconds from now; undefined where the header is neither, or came several times
 */
export function parseRetryAfter(
  value: string | readonly string[] | undefined,
  nowMs: number,
): number | undefined {
  if (typeof value !== "string") return undefined;
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1000;
  // Date.parse makes a year of almost anything; every form of HTTP-date begins with the name of a day.
  const date = /^[A-Z][a-z]{2}/.test(value) ? Date.parse(value) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(date - nowMs, 0);
}

/**
 * How long a busy server asks to be left alone.
 * @param headers with names in lower case
 * @param nowMs milliseconds since 1970
 * @returns milliseconds; undefined where the server is not busy, or does not say how long
 */
export const retryDelayMs = (
  status: number,
  headers: Readonly<Record<string, string | readonly string[] | undefined>>,
  nowMs: number,
): number | undefined =>
  isBusy(status) ? parseRetryAfter(headers["retry-after"], nowMs) : undefined;

/** Whether this is the status of a server that has done nothing yet, and may do it later. */
export const isBusy = (status: number): boolean => status === 429 || status === 503;
