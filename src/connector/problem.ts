/** One thing that is wrong with what a person wrote. */
export interface Problem {
  /** Where it stands, as in the document: `spec.auth.secretRef.namespace`. */
  readonly path: string;
  /** What stands there, already fit to be shown: never a secret, see {@link show}. */
  readonly found: string;
  /** What would be right there. */
  readonly wanted: string;
}

/** A checked value, or everything that is wrong with it. */
export type Checked<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problems: readonly Problem[] };

const maxShownLength = 120;

/**
 * A foreign value as one short line of JSON. What a terminal would act upon (control characters, also
 * those above ASCII, and signs that turn the direction of text) is written as its code. Never throws.
 */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = toJson(value);
  const shown = text.length > maxShownLength ? `${text.slice(0, maxShownLength)}…` : text;
  return shown.replace(
    /[\p{C}\u2028\u2029]/gu,
    (sign) => `\\u{${sign.codePointAt(0)?.toString(16)}}`,
  );
}

/** YAML has values that JSON has not: by an alias a list can contain itself. */
function toJson(value: unknown): string {
  const unprintable = "something that can't be shown";
  try {
    return JSON.stringify(value) ?? unprintable;
  } catch {
    return unprintable;
  }
}

/** An event has room for 1024 characters, and a gRPC status goes into a header. */
const maxDescribedProblems = 20;

/** All problems in one sentence, for an event, a condition or a terminal; of very many, the first. */
export function describeProblems(problems: readonly Problem[]): string {
  const sentences = problems
    .slice(0, maxDescribedProblems)
    .map(({ path, found, wanted }) => `${path}: found ${found}, wanted ${wanted}`);
  const more = problems.length - sentences.length;
  return [...sentences, ...(more > 0 ? [`and ${more} more problems`] : [])].join("; ");
}
