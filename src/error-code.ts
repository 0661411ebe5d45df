/** The code of an error from the operating system, such as `ENOENT`. */
export const errorCode = (error: unknown): unknown =>
  error instanceof Error && "code" in error ? error.code : undefined;

/** For what fails with one of these codes as an expected outcome: `promise.catch(unless(…))`, `attempt(action, unless(…))`. */
export const unless =
  <T>(value: T, ...codes: readonly string[]) =>
  (error: unknown): T => {
    if (codes.some((code) => code === errorCode(error))) return value;
    throw error;
  };

/** What an action returns, or else what is made of its error. */
export function attempt<T, U>(action: () => T, otherwise: (error: unknown) => U): T | U {
  try {
    return action();
  } catch (error) {
    return otherwise(error);
  }
}
