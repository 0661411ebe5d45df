/** One thing that is wrong with what a person wrote. */
export interface Problem {
  /** The place in the document: `spec.auth.secretRef.namespace`. */
  readonly path: string;
  /** What is there, in a form that can be shown: never a secret, see {@link show}. */
  readonly found: string;
  /** What would be valid there. */
  readonly wanted: string;
}

/** A checked value, or everything that is wrong with it. */
export type Checked<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problems: readonly Problem[] };

const maxShownLength = 120;

/**
 * Formats a foreign value as one short line of JSON for a message. Characters that a terminal would act upon (control
 * characters, also those above ASCII, and characters that change the direction of text) are written as their codes.
 * Never throws.
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

/** The JSON of a value. Some values of YAML have none: by an alias, a list can contain itself. */
function toJson(value: unknown): string {
  const unprintable = "something that can't be shown";
  try {
    return JSON.stringify(value) ?? unprintable;
  } catch {
    return unprintable;
  }
}

/** A bound, since an event has room for 1024 characters, and a gRPC status goes into a header. */
const maxDescribedProblems = 20;

/** Describes problems in one sentence for an event, a condition or a terminal. Of very many, it names the first. */
export function describeProblems(problems: readonly Problem[]): string {
  const sentences = problems
    .slice(0, maxDescribedProblems)
    .map(({ path, found, wanted }) => `${path}: found ${found}, wanted ${wanted}`);
  const more = problems.length - sentences.length;
  return [...sentences, ...(more > 0 ? [`and ${more} more problems`] : [])].join("; ");
}
