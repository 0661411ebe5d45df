/**
 * Suggests known words for an unknown one.
 * @returns ` (did you mean mount or unmount?)`, to stand behind a sentence; an empty text where no known word is near.
 * A third of the letters may be wrong, and at least one. Where no word is that near, the known words that begin with
 * the given one count.
 */
export function didYouMean(word: string, known: readonly string[]): string {
  const near = nearest(word, known);
  return near.length === 0 ? "" : ` (did you mean ${near.join(" or ")}?)`;
}

function nearest(word: string, known: readonly string[]): readonly string[] {
  const given = normalize(word);
  if (given.length > maxWordLength) return [];
  const distances = known.map((candidate) => distance(given, normalize(candidate)));
  const minDistance = Math.min(...distances);
  if (minDistance <= Math.max(1, Math.floor(given.length / 3))) {
    return known.filter((_, index) => distances[index] === minDistance);
  }
  if (given.length < 3) return [];
  return known.filter((candidate) => normalize(candidate).startsWith(given));
}

/**
 * Longer words are not compared: no command or option is nearly as long, and the cost of a comparison grows with the
 * length.
 */
const maxWordLength = 40;

const normalize = (word: string): string => word.toLowerCase().replace(/^-+/, "");

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
