import type { IncomingMessage } from "node:http";
import { parseJson } from "../connector/document.ts";
import { errorOfConnection, errorOfStatus } from "./api-error.ts";
import { type ApiAccess, type ApiCall, sendApiRequest } from "./api-request.ts";

export interface WatchCall {
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** For how many milliseconds nothing at all may come. */
  readonly silenceMs: number;
}

/**
 * The few calls of the API that roles need. Objects come as they are, to be read with care.
 */
export interface ApiClient {
  /**
   * @returns the object of a successful answer
   * @throws ApiError where it is refused
   * @throws Unavailable where there is no answer, or none that says anything about the request
   */
  request(call: ApiCall): Promise<unknown>;
  /**
   * The events of a watch that has begun, until the API server ends it. The generator throws
   * Unavailable where the connection is cut, or silent for too long.
   * @throws as `request` where it can't begin
   */
  watch(call: WatchCall): Promise<AsyncGenerator<unknown>>;
}

export interface ApiClientOptions {
  readonly access: ApiAccess;
  /** Milliseconds within which a request has to be answered. */
  readonly timeoutMs?: number;
}

/** etcd takes objects of 1.5 MiB, and lists are asked for in pieces. */
const longestAnswer = 64 * 1024 * 1024;

export function createApiClient({ access, timeoutMs = 10_000 }: ApiClientOptions): ApiClient {
  const headMs = timeoutMs;
  return {
    async request(call) {
      const signal = AbortSignal.timeout(timeoutMs);
      const { status, body } = await answeredBy(async () => {
        const response = await sendApiRequest(access, call, { signal, headMs, silenceMs: headMs });
        return { status: response.statusCode ?? 0, body: await readJson(response) };
      });
      if (status < 200 || status > 299) throw errorOfStatus(status, body);
      return body;
    },

    async watch({ path, query, signal, silenceMs }) {
      const call = { path, query: { ...query, watch: "true" } };
      const response = await answeredBy(() =>
        sendApiRequest(access, call, { signal, headMs, silenceMs }),
      );
      if (response.statusCode === 200) return eventsOf(response);
      const body = await answeredBy(() => readJson(response));
      throw errorOfStatus(response.statusCode ?? 0, body);
    },
  };
}

async function* eventsOf(response: IncomingMessage): AsyncGenerator<unknown> {
  const lines = linesOf(response, longestAnswer);
  try {
    for (;;) {
      const { done, value } = await answeredBy(() => lines.next());
      if (done) return;
      yield parseJson(value);
    }
  } finally {
    response.destroy();
  }
}

/** Whatever goes wrong here is a matter of the connection. */
async function answeredBy<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    throw errorOfConnection(error);
  }
}

/** The JSON of a body; undefined where it is none: some errors of the API server, and of a proxy before it, are plain text. */
async function readJson(response: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > longestAnswer)
      throw new RangeError(`its response is longer than ${longestAnswer} bytes`);
  }
  return parseJson(Buffer.concat(chunks).toString("utf8"));
}

/**
 * The lines of a stream of UTF-8, without their ends.
 * @throws RangeError for a line longer than so many bytes
 */
export async function* linesOf(
  stream: AsyncIterable<Uint8Array>,
  longest: number,
): AsyncGenerator<string> {
  let pieces: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      pieces.push(chunk.subarray(start, end));
      yield Buffer.concat(pieces).toString("utf8");
      pieces = [];
      length = 0;
      start = end + 1;
    }
    const rest = chunk.subarray(start);
    length += rest.length;
    if (length > longest) throw new RangeError(`a line longer than ${longest} bytes`);
    pieces.push(rest);
  }
  if (length > 0) yield Buffer.concat(pieces).toString("utf8");
}
