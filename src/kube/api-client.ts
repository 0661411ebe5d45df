import http, { type IncomingMessage } from "node:http";
import https, { type RequestOptions } from "node:https";
import { parseJson } from "../connector/document.ts";
import type { ApiAccess } from "./api-access.ts";
import { errorOfConnection, errorOfStatus } from "./api-error.ts";

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

export interface ApiCall {
  readonly method?: "GET" | "POST" | "PATCH" | "DELETE";
  /** `/api/v1/namespaces/team-a/secrets/harbor` */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  /** Of the body; JSON unless given. */
  readonly contentType?: string;
}

export interface ApiRequestOptions {
  /** Ends the exchange, also while its answer is read. */
  readonly signal: AbortSignal;
  /** Within how many milliseconds an answer has to begin. */
  readonly headMs: number;
  /** For how many milliseconds nothing may come in the middle of an answer. */
  readonly silenceMs: number;
}

/** A peer that is gone shows after some 25 s: this, and ten probes of a second each. */
const keepAliveMs = 15_000;

/** A connection that was kept, and that the API server has closed just before we used it. */
class StaleConnection extends Error {}

const staleCodes: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE"]);

/** As many kept connections may all have been closed: the API server has been restarted. */
const mostStale = 5;

/** Sends a request and awaits the head of its answer. */
export async function sendApiRequest(
  access: ApiAccess,
  call: ApiCall,
  options: ApiRequestOptions,
): Promise<IncomingMessage> {
  const url = urlOf(access.server, call);
  for (let stale = 0; ; stale += 1) {
    const body = bodyOf(call);
    const settings = await settingsOf(access, call, body, options.signal);
    try {
      return await sendOnce(url, settings, body, options);
    } catch (error) {
      if (!(error instanceof StaleConnection) || stale === mostStale) throw error;
    }
  }
}

function urlOf(server: URL, { path, query = {} }: ApiCall): URL {
  const url = new URL(server);
  url.pathname = `${server.pathname.replace(/\/$/, "")}${path}`;
  url.search = new URLSearchParams(query).toString();
  return url;
}

const bodyOf = ({ body }: ApiCall): string | undefined =>
  body === undefined ? undefined : JSON.stringify(body);

async function settingsOf(
  access: ApiAccess,
  call: ApiCall,
  body: string | undefined,
  signal: AbortSignal,
): Promise<RequestOptions> {
  const given = await access.requestOptions();
  // Without a length node:http sends the body of a DELETE all the same, as if another request began.
  const type = body !== undefined && {
    "content-type": call.contentType ?? json,
    "content-length": Buffer.byteLength(body),
  };
  return {
    ...given,
    method: call.method ?? "GET",
    signal,
    headers: { ...given.headers, accept: json, "user-agent": "oci-connector", ...type },
  };
}

const json = "application/json";

function sendOnce(
  url: URL,
  settings: RequestOptions,
  body: string | undefined,
  { headMs, silenceMs }: ApiRequestOptions,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const { request } = url.protocol === "http:" ? http : https;
    const outgoing = request(url, settings, (incoming) => {
      incoming.setTimeout(silenceMs, () => incoming.destroy(silent(silenceMs)));
      resolve(incoming);
    });
    outgoing.once("socket", (socket) => socket.setKeepAlive(true, keepAliveMs));
    outgoing.setTimeout(headMs, () => outgoing.destroy(silent(headMs)));
    outgoing.on("error", (error: NodeJS.ErrnoException) => {
      const isStale = outgoing.reusedSocket && staleCodes.has(error.code ?? "");
      reject(isStale ? new StaleConnection() : error);
    });
    outgoing.end(body);
  });
}

const silent = (ms: number): Error => new Error(`no data arrived for ${ms / 1000} s`);
