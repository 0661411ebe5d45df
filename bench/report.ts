import { median } from "../test/support/statistics.ts";
import type { Comparison, Sample } from "./comparison.ts";
import { connectorName, yardstick } from "./contestants.ts";
import type { Figure } from "./figure.ts";

/** Which contestant is compared with which. */
export interface Pair {
  readonly subject: string;
  readonly yardstick: string;
}

const besideNginx: Pair = { subject: connectorName, yardstick };

/** A Markdown table of what was done through every contestant. Ratios are of turns in the same round. */
export function comparisonTable(
  comparisons: readonly Comparison[],
  pair: Pair = besideNginx,
): string {
  const names = [...new Set(comparisons.flatMap(({ samples }) => [...samples.keys()]))];
  const rows = comparisons.map(({ label, unit, samples, target }) => {
    const cells = names.map((name) => rateCell(samples, { ...pair, subject: name }, unit));
    const ratios = ratiosOf(samples, pair, rateOf);
    const cpu = ratiosOf(samples, pair, cpuPerAmount);
    const reached = median(ratios);
    return [
      `${label}, ${unit}`,
      ...cells,
      `${ratio(reached)} (${ratio(Math.min(...ratios))}–${ratio(Math.max(...ratios))})`,
      target === undefined ? "" : `≥ ${target}, ${verdict(reached >= target)}`,
      ratio(median(cpu)),
    ];
  });
  const of = `of ${pair.yardstick}`;
  return table(["", ...names, of, "target", `CPU, ${of}`], rows);
}

/** A Markdown table of figures of the connector alone. */
export const figureTable = (figures: readonly Figure[]): string =>
  table(
    ["", connectorName, "target"],
    figures.map(({ label, value, unit, target }) => [
      label,
      `${value < 20 ? value.toFixed(1) : value.toFixed(0)} ${unit}`,
      target === undefined ? "" : `≤ ${target} ${unit}, ${verdict(value <= target)}`,
    ]),
  );

const verdict = (isMet: boolean): string => (isMet ? "met" : "**missed**");

type Samples = Comparison["samples"];

function rateCell(samples: Samples, pair: Pair, unit: Comparison["unit"]): string {
  const taken = samples.get(pair.subject);
  if (taken === undefined) return "–";
  const rate = median(taken.map(rateOf));
  const text = unit === "GB/s" ? (rate / 1e9).toFixed(2) : Math.round(rate).toLocaleString("en");
  if (pair.subject === pair.yardstick) return text;
  return `${text} (${ratio(median(ratiosOf(samples, pair, rateOf)))})`;
}

const rateOf = ({ amount, seconds }: Sample): number => amount / seconds;

const cpuPerAmount = ({ amount, cpuSeconds }: Sample): number => cpuSeconds / amount;

function ratiosOf(
  samples: Samples,
  { subject, yardstick }: Pair,
  value: (sample: Sample) => number,
): number[] {
  const others = samples.get(yardstick) ?? [];
  return (samples.get(subject) ?? []).map((sample, round) => {
    const other = others[round];
    return other === undefined ? Number.NaN : value(sample) / value(other);
  });
}

const ratio = (value: number): string => value.toFixed(2);

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((_, column) =>
    Math.max(3, ...[head, ...rows].map((row) => row[column]?.length ?? 0)),
  );
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |\n`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("");
}
