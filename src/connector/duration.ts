const secondsPerUnit: Readonly<Record<string, number>> = {
  ns: 1e-9,
  us: 1e-6,
  µs: 1e-6,
  ms: 1e-3,
  s: 1,
  m: 60,
  h: 3600,
};

const part = /(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)/y;

/** Seconds in a Go duration such as `30m` or `1h15m`, or undefined where the text is not one. Go's `time.ParseDuration`, without a sign. */
export function parseGoDuration(text: string): number | undefined {
  let seconds = 0;
  part.lastIndex = 0;
  while (part.lastIndex < text.length) {
    const match = part.exec(text);
    if (match === null) return undefined;
    seconds += Number(match[1]) * (secondsPerUnit[match[2] ?? ""] ?? Number.NaN);
  }
  return text === "" ? undefined : seconds;
}
