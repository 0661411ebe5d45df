import { property } from "../connector/document.ts";
import { Unavailable } from "../connector/platform.ts";

/** A request that the API server has refused, and would refuse again. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  /** The HTTP status: 403, 404, 409, 410, 422… */
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** A response was longer than the client reads. Where it is a list, a smaller page may do. */
export class ResponseTooLarge extends Unavailable {
  constructor(maxBytes: number) {
    super(`the API server's response is longer than ${maxBytes} bytes`);
  }
}

/** Whether an error is a refusal with one of these HTTP statuses. */
export const hasStatus = (error: unknown, ...statuses: readonly number[]): boolean =>
  error instanceof ApiError && statuses.includes(error.status);

const maxMessageLength = 1000;

/**
 * Creates the error for a response, or an event of a watch, that is a `Status` object.
 * @param body the `Status`, or anything else
 */
export function statusError(status: number, body: unknown): ApiError | Unavailable {
  const text = property(body, "message");
  const message = typeof text === "string" ? text.slice(0, maxMessageLength) : `HTTP ${status}`;
  if (status === 401) {
    // Our own token is wrong, or the API server can't read its keys yet: whoever asks us has made no mistake.
    return new Unavailable(`the API server does not accept our credential: ${message}`);
  }
  if (status === 429 || status >= 500) {
    return new Unavailable(`the API server can't answer now: ${message}`);
  }
  return new ApiError(status, message);
}

/**
 * What a refusal is where it is no fault of whoever asks us, since our own rights or requests are wrong: the question
 * can't be answered now. Other errors stay as they are. To be used as `promise.catch(refusedAsUnavailable("tokens can't
 * be reviewed"))`.
 * @param what what can't be done, in a sentence
 */
export const refusedAsUnavailable =
  (what: string) =>
  (error: unknown): never => {
    if (!(error instanceof ApiError)) throw error;
    throw new Unavailable(`${what}: ${error.message}`, { cause: error });
  };

/** Creates the error for a request that got no response. @param error that of node:http */
export function connectionError(error: unknown): Unavailable {
  const detail = isTimeout(error) ? "the request timed out" : describe(error);
  return new Unavailable(`the API server can't be reached: ${detail}`, { cause: error });
}

const describe = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);

/** Whether AbortSignal.timeout() has ended a request of node:http. */
const isTimeout = (error: unknown): boolean =>
  error instanceof Error &&
  error.cause instanceof DOMException &&
  error.cause.name === "TimeoutError";
