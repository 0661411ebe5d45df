/** The code of an error from the operating system, such as `ENOENT`. */
export const errorCode = (error: unknown): unknown =>
  error instanceof Error && "code" in error ? error.code : undefined;

/** For promises whose failure with one of these codes is an expected outcome. */
export const unless =
  <T>(value: T, ...codes: readonly string[]) =>
  (error: unknown): T => {
    if (codes.some((code) => code === errorCode(error))) return value;
    throw error;
  };
