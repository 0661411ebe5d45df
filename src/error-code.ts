/** The code of an error from the operating system, such as `ENOENT`. */
export const errorCode = (error: unknown): unknown =>
  error instanceof Error && "code" in error ? error.code : undefined;

/**
 * A handler for errors with expected codes: it returns a value for them, and throws every other error again.
 * @example
 * const status = await lstat(path).catch(unless(undefined, "ENOENT"));
 * const text = attempt(() => readFileSync(path, "utf8"), unless("", "ENOENT"));
 */
export const unless =
  <T>(value: T, ...codes: readonly string[]) =>
  (error: unknown): T => {
    if (codes.some((code) => code === errorCode(error))) return value;
    throw error;
  };

/**
 * Runs a synchronous action.
 * @returns what the action returns, or what `otherwise` returns for its error
 */
export function attempt<T, U>(action: () => T, otherwise: (error: unknown) => U): T | U {
  try {
    return action();
  } catch (error) {
    return otherwise(error);
  }
}
