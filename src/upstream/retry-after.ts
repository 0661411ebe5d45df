import type { IncomingHttpHeaders } from "node:http";

/**
 * How long a server asks to be left alone (RFC 9110, section 10.2.3): seconds, or a date.
 * @param now milliseconds since 1970
 * @returns milliseconds, undefined where it says nothing that makes sense
 */
export function parseRetryAfter(
  value: string | readonly string[] | undefined,
  now: number,
): number | undefined {
  if (typeof value !== "string") return undefined;
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1000;
  // Date.parse makes a year of almost anything; every form of HTTP-date begins with the name of a day.
  const date = /^[A-Z][a-z]{2}/.test(value) ? Date.parse(value) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(date - now, 0);
}

/** How long a busy server asks to be left alone, in milliseconds; undefined where it is not busy, or does not say. */
export const retryDelayMs = (
  status: number,
  headers: IncomingHttpHeaders,
  now: number,
): number | undefined =>
  isBusy(status) ? parseRetryAfter(headers["retry-after"], now) : undefined;

/** Statuses of a server that has done nothing yet, and may do it later. */
export const isBusy = (status: number): boolean => status === 429 || status === 503;
