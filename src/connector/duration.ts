/** The units of a Go duration. The sign for micro is either of two letters, U+00B5 and U+03BC. */
const nanosecondsPerUnit: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  "\u00b5s": 1e3,
  "\u03bcs": 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** One number and its unit. No two quantifiers compete for the same digits, so any text takes linear time. */
const part = /(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)/y;

/**
 * Parses a Go duration as `time.ParseDuration` does, but without a sign and without its limit of 292 years.
 * @returns seconds, or undefined where the text is no duration
 * @example
 * parseGoDurationSeconds("1h15m"); // 4500
 * parseGoDurationSeconds("1.5s"); // 1.5
 * parseGoDurationSeconds("10"); // undefined
 */
export function parseGoDurationSeconds(text: string): number | undefined {
  if (text === "0") return 0;
  let nanoseconds = 0;
  part.lastIndex = 0;
  while (part.lastIndex < text.length) {
    const match = part.exec(text);
    if (match === null) return undefined;
    nanoseconds += Number(match[1]) * (nanosecondsPerUnit[match[2] ?? ""] ?? Number.NaN);
  }
  return text === "" ? undefined : nanoseconds / 1e9;
}
