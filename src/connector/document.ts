import { type Problem, show } from "./problem.ts";

/**
 * Reads fields of a document of unknown shape and collects every problem with them, so that a person learns of all
 * problems at once.
 */
export interface DocumentReader {
  readonly problems: Problem[];
  /** The value at a path such as `spec.auth.name`, or undefined where there is none. */
  at(path: string): unknown;
  /** The text at a path, or undefined where there is none. Any other value is a problem. */
  text(path: string): string | undefined;
  /** The list at a path, empty where there is none. Any other value is a problem. */
  list(path: string): readonly unknown[];
  /** Whether there is an object at a path. Any other value is a problem. */
  hasObject(path: string): boolean;
  /** Adds a problem with the value at a path, and shows that value. */
  refuse(path: string, wanted: string): void;
}

/** Creates a reader of a document. */
export function readDocument(document: unknown): DocumentReader {
  const problems: Problem[] = [];
  const at = (path: string): unknown =>
    path.split(".").reduce<unknown>((value, key) => property(value, key), document);
  const refuse = (path: string, wanted: string): void => {
    problems.push({ path, found: show(at(path)), wanted });
  };
  return {
    problems,
    at,
    refuse,
    text(path) {
      const value = at(path) ?? undefined;
      if (value === undefined || typeof value === "string") return value;
      refuse(path, "a text");
      return undefined;
    },
    list(path) {
      const value = at(path) ?? [];
      if (Array.isArray(value)) return value;
      refuse(path, "a list");
      return [];
    },
    hasObject(path) {
      const value = at(path) ?? undefined;
      if (value === undefined) return false;
      if (typeof value === "object" && !Array.isArray(value)) return true;
      refuse(path, "an object");
      return false;
    },
  };
}

/** An own property of an object; undefined for anything else, so that `__proto__` reads as nothing. */
export function property(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null && Object.hasOwn(value, key)
    ? (value as Record<string, unknown>)[key]
    : undefined;
}

/** A value that is a list, or an empty list for any other value. */
export const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

/**
 * The value of a JSON text; undefined where there is no text, or it is not JSON. The error of JSON.parse is
 * dropped, since it quotes the text, which may hold a secret.
 */
export function parseJson(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? "");
  } catch {
    return undefined;
  }
}

/** An entry of a list of `{name, value}`. */
export interface Param {
  /** Its place in the list. */
  readonly index: number;
  readonly value: unknown;
}

/** The first parameter of a name. A parameter without a value counts as empty. */
export function paramIn(params: readonly unknown[], name: string): Param | undefined {
  const index = params.findIndex((param) => property(param, "name") === name);
  return index < 0 ? undefined : { index, value: property(params[index], "value") ?? "" };
}
