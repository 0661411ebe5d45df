/**
 * What somebody may have meant: ` (did you mean mount or unmount?)`, to stand behind a sentence, and
 * nothing where no known word is near. A third of the letters may be wrong, and at least one; a word
 * that only begins as a known one does counts, too, where nothing is nearer.
 */
export function didYouMean(word: string, known: readonly string[]): string {
  const near = nearest(word, known);
  return near.length === 0 ? "" : ` (did you mean ${near.join(" or ")}?)`;
}

function nearest(word: string, known: readonly string[]): readonly string[] {
  const given = bare(word);
  if (given.length > longestWord) return [];
  const distances = known.map((candidate) => distance(given, bare(candidate)));
  const least = Math.min(...distances);
  if (least <= Math.max(1, Math.floor(given.length / 3))) {
    return known.filter((_, index) => distances[index] === least);
  }
  if (given.length < 3) return [];
  return known.filter((candidate) => bare(candidate).startsWith(given));
}

/** No command or option is nearly as long, and what a distance costs grows with the length. */
const longestWord = 40;

const bare = (word: string): string => word.toLowerCase().replace(/^-+/, "");

/**
 * How many letters have to be put in, taken out, replaced or swapped with their neighbour to make one
 * word of the other: the Damerau-Levenshtein distance, where no place is edited twice.
 */
export function distance(from: string, to: string): number {
  let beforeLast: readonly number[] = [];
  let last: readonly number[] = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let row = 1; row <= from.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= to.length; column += 1) {
      const isSame = from[row - 1] === to[column - 1];
      const isSwapped = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      current.push(
        Math.min(
          at(last, column) + 1,
          at(current, column - 1) + 1,
          at(last, column - 1) + (isSame ? 0 : 1),
          isSwapped ? at(beforeLast, column - 2) + 1 : Number.POSITIVE_INFINITY,
        ),
      );
    }
    beforeLast = last;
    last = current;
  }
  return at(last, to.length);
}

const at = (row: readonly number[], column: number): number =>
  row[column] ?? Number.POSITIVE_INFINITY;
