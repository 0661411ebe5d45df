/** Lists in settings: texts with an entry each between commas. */
import { type Problem, show } from "./problem.ts";

/** The entries of a list with commas, without white space around them and without empty ones. */
export const splitList = (text: string): readonly string[] =>
  text
    .split(",")
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "");

/**
 * Reads each entry of a list.
 * @param read gives undefined for an entry that is wrong
 * @param rule where the list stands, and what an entry has to be, for problems
 * @returns what was read, and a problem for each entry that is wrong
 */
export function readEntries<T>(
  entries: readonly string[],
  read: (entry: string) => T | undefined,
  { path, wanted }: Pick<Problem, "path" | "wanted">,
): { readonly values: readonly T[]; readonly problems: Problem[] } {
  const values: T[] = [];
  const problems: Problem[] = [];
  for (const entry of entries) {
    const value = read(entry);
    if (value === undefined) problems.push({ path, found: show(entry), wanted });
    else values.push(value);
  }
  return { values, problems };
}
