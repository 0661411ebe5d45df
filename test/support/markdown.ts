/** The width of prose, as `.markdownlint-cli2.jsonc` has it. Tables and code may be wider. */
const maxColumns = 120;

/** A word, or several that a code span keeps on one line. */
const words = /(?:`[^`]*`|[^\s`])+/g;

/** A paragraph in lines of at most 120 columns, with a line end after it. */
export const paragraph = (text: string): string => `${wrapped(text, "", "")}\n`;

/** An item of a list, in lines of at most 120 columns, with a line end after it. */
export const listItem = (text: string): string => `${wrapped(text, "- ", "  ")}\n`;

/** A table, without a line end after it. Pipes in cells are escaped. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(headings), line(headings.map(() => "---")), ...rows.map(line)].join("\n");
}

function wrapped(text: string, first: string, others: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.match(words) ?? []) {
    const indent = lines.length === 0 ? first : others;
    if (line !== "" && `${indent}${line} ${word}`.length > maxColumns) {
      lines.push(indent + line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  lines.push((lines.length === 0 ? first : others) + line);
  return lines.join("\n");
}
