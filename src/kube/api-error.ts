import { property } from "../connector/document.ts";
import { Unavailable } from "../connector/platform.ts";

/** The API server has refused a request, and would refuse it again. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  /** The HTTP status: 403, 404, 409, 410, 422… */
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export const hasStatus = (error: unknown, ...statuses: readonly number[]): boolean =>
  error instanceof ApiError && statuses.includes(error.status);

const longestMessage = 1000;

/** The error that an answer, or an event of a watch, with a `Status` object stands for. */
export function errorOfStatus(status: number, body: unknown): ApiError | Unavailable {
  const said = property(body, "message");
  const message = typeof said === "string" ? said.slice(0, longestMessage) : `HTTP ${status}`;
  if (status === 401) {
    // It concerns our own token, or an API server that can't read its keys yet: nobody's mistake who asks us.
    return new Unavailable(`the API server does not accept our credential: ${message}`);
  }
  if (status === 429 || status >= 500) {
    return new Unavailable(`the API server can't answer now: ${message}`);
  }
  return new ApiError(status, message);
}

/**
 * What a refusal is where it is no fault of whoever asks us, since our own rights or requests are wrong: the question can't
 * be answered now. Other errors stay as they are. To be used as `promise.catch(refusedAsUnavailable("tokens can't be reviewed"))`.
 * @param what what can't be done, in a sentence
 */
export const refusedAsUnavailable =
  (what: string) =>
  (error: unknown): never => {
    if (!(error instanceof ApiError)) throw error;
    throw new Unavailable(`${what}: ${error.message}`, { cause: error });
  };

/** The error that a request which got no answer stands for. */
export function errorOfConnection(error: unknown): Unavailable {
  const detail = isTimeout(error) ? "the request timed out" : describe(error);
  return new Unavailable(`the API server can't be reached: ${detail}`, { cause: error });
}

const describe = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);

/** What AbortSignal.timeout() ends a request of node:http with. */
const isTimeout = (error: unknown): boolean =>
  error instanceof Error &&
  error.cause instanceof DOMException &&
  error.cause.name === "TimeoutError";
