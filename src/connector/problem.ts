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

const shownLength = 120;

/** A foreign value as one short line of JSON, so that no control character reaches a terminal. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = JSON.stringify(value) ?? String(value);
  return text.length > shownLength ? `${text.slice(0, shownLength)}…` : text;
}

/** All problems in one sentence, for an event, a condition or a terminal. */
export function describeProblems(problems: readonly Problem[]): string {
  return problems
    .map(({ path, found, wanted }) => `${path}: found ${found}, wanted ${wanted}`)
    .join("; ");
}
