import http, { type IncomingMessage } from "node:http";
import https, { type RequestOptions } from "node:https";
import { parseJson } from "../connector/document.ts";
import type { ApiAccess, RequestPurpose } from "./api-access.ts";
import { connectionError, ResponseTooLarge, statusError } from "./api-error.ts";
import { createEventSkimmer, type EventSkimmer, type SkimmedEvent } from "./skim-event.ts";

/** A request to the API server. */
export interface ApiRequest {
  /** GET unless given. */
  readonly method?: "GET" | "POST" | "PATCH" | "DELETE";
  /** `/api/v1/namespaces/team-a/secrets/harbor` */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** The object to send, as JSON. */
  readonly body?: unknown;
  /** The Content-Type of the body; `application/json` unless given. */
  readonly contentType?: string;
  /** The media types that are wanted; `application/json` unless given. */
  readonly accept?: string;
}

/** A watch to begin: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes */
export interface WatchRequest {
  /** The collection to watch. */
  readonly path: string;
  /** Without `watch=true`, which is added. */
  readonly query: Readonly<Record<string, string>>;
  /** Ends the watch. */
  readonly signal: AbortSignal;
  /** The watch counts as cut after so many milliseconds without a byte. */
  readonly idleTimeoutMs: number;
}

/**
 * A client of the Kubernetes API with the few calls that roles need. Objects come as they are: whoever reads them
 * checks them.
 */
export interface ApiClient {
  /**
   * Sends a request.
   * @returns the object in the response
   * @throws ApiError where the API server refuses the request
   * @throws Unavailable where there is no response, or one that says nothing about the request
   */
  request(request: ApiRequest): Promise<unknown>;
  /**
   * Begins a watch. The generator yields its events until the API server ends it, and throws Unavailable where the
   * connection is cut, or silent for too long. Of an event that is too large it yields a {@link SkimmedEvent}.
   * @throws what `request` throws, where the watch can't begin
   */
  watch(request: WatchRequest): Promise<AsyncGenerator<unknown>>;
  /** When a connection to the API server last failed, as `performance.now` tells time; -Infinity before the first. */
  lastFailureAt(): number;
}

export interface ApiClientOptions {
  readonly access: ApiAccess;
  /** Milliseconds within which a request has to be answered as a whole, and a watch has to begin. */
  readonly timeoutMs?: number;
}

/** An API server takes objects of 3 MiB, etcd of 1.5 MiB by default, and lists are read page by page. */
const maxResponseBytes = 4 * 1024 * 1024;
/** A longer event of a watch is not held, only skimmed. */
const maxEventBytes = 2 * 1024 * 1024;
/** No event is as long as this: it has no end. */
const maxSkimmedBytes = 64 * 1024 * 1024;

/**
 * Creates a client of the API server.
 * @example
 * const client = createApiClient({ access: createInClusterAccess({ host, port, folder: serviceAccountFolder }) });
 * const secret = await client.request({ path: "/api/v1/namespaces/team-a/secrets/harbor" });
 */
export function createApiClient({ access, timeoutMs = 10_000 }: ApiClientOptions): ApiClient {
  const headersTimeoutMs = timeoutMs;
  let lastFailureAt = Number.NEGATIVE_INFINITY;

  /** Runs what only sends and reads: each of its errors is one of the connection. @throws Unavailable */
  async function withConnectionErrors<T>(exchange: () => Promise<T>): Promise<T> {
    try {
      return await exchange();
    } catch (error) {
      if (error instanceof ResponseTooLarge) throw error;
      lastFailureAt = performance.now();
      throw connectionError(error);
    }
  }

  async function* readEvents(response: IncomingMessage): AsyncGenerator<unknown> {
    const lines = readLines(response, maxEventBytes, maxSkimmedBytes);
    try {
      for (;;) {
        const { done, value } = await withConnectionErrors(() => lines.next());
        if (done) return;
        yield typeof value === "string" ? parseJson(value) : value;
      }
    } finally {
      response.destroy();
    }
  }

  return {
    lastFailureAt: () => lastFailureAt,

    async request(request) {
      const signal = AbortSignal.timeout(timeoutMs);
      const { status, body } = await withConnectionErrors(async () => {
        const response = await sendRequest(access, request, {
          purpose: "request",
          signal,
          headersTimeoutMs,
          idleTimeoutMs: timeoutMs,
        });
        return { status: response.statusCode ?? 0, body: await readJson(response) };
      });
      if (status < 200 || status > 299) throw statusError(status, body);
      return body;
    },

    async watch({ path, query, signal, idleTimeoutMs }) {
      const request = { path, query: { ...query, watch: "true" } };
      const response = await withConnectionErrors(() =>
        sendRequest(access, request, { purpose: "watch", signal, headersTimeoutMs, idleTimeoutMs }),
      );
      if (response.statusCode === 200) return readEvents(response);
      const body = await withConnectionErrors(() => readJson(response));
      throw statusError(response.statusCode ?? 0, body);
    },
  };
}

/**
 * The JSON of a body; undefined where it is none: some errors of the API server, and of a proxy before it, are plain
 * text.
 */
async function readJson(response: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > maxResponseBytes) throw new ResponseTooLarge(maxResponseBytes);
  }
  const text = Buffer.concat(chunks).toString("utf8");
  chunks.length = 0; // they are not needed while the text is parsed
  return parseJson(text);
}

/**
 * The lines of a stream of UTF-8, without their line feeds.
 * @param maxLineBytes how long a line may be that is held; a longer one is skimmed as an event
 * @param maxSkimmedBytes how long a line may be at all
 * @returns for a longer line what was skimmed, undefined where that is no event
 * @throws RangeError for a line that is too long to be skimmed
 */
export async function* readLines(
  stream: AsyncIterable<Uint8Array>,
  maxLineBytes: number,
  maxSkimmedBytes: number,
): AsyncGenerator<string | SkimmedEvent | undefined> {
  let pieces: Uint8Array[] = [];
  let length = 0;
  let skimmer: EventSkimmer | undefined;

  const add = (piece: Uint8Array): void => {
    length += piece.length;
    if (length > maxSkimmedBytes)
      throw new RangeError(`a line is longer than ${maxSkimmedBytes} bytes`);
    if (skimmer === undefined && length > maxLineBytes) {
      skimmer = createEventSkimmer();
      for (const held of pieces) skimmer.add(held);
      pieces = [];
    }
    if (skimmer === undefined) pieces.push(piece);
    else skimmer.add(piece);
  };
  const end = (): string | SkimmedEvent | undefined => {
    const line = skimmer === undefined ? Buffer.concat(pieces).toString("utf8") : skimmer.end();
    pieces = [];
    length = 0;
    skimmer = undefined;
    return line;
  };

  for await (const chunk of stream) {
    let start = 0;
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, start)) {
      add(chunk.subarray(start, at));
      yield end();
      start = at + 1;
    }
    add(chunk.subarray(start));
  }
  if (length > 0) yield end();
}

interface SendOptions {
  readonly purpose: RequestPurpose;
  /** Ends the exchange, also while the body is read. */
  readonly signal: AbortSignal;
  /** Milliseconds within which the head of the response has to come. */
  readonly headersTimeoutMs: number;
  /** Milliseconds without a byte after which the body counts as cut. */
  readonly idleTimeoutMs: number;
}

/**
 * TCP keep-alive starts after so much silence. With ten probes of a second each, a peer that is gone is noticed after
 * 25 s.
 */
const keepAliveMs = 15_000;

/** A kept connection that the API server closed just before we used it. */
class StaleConnection extends Error {}

const staleCodes: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE"]);

/** So many kept connections may be stale one after the other: the API server was restarted. */
const maxStaleConnections = 5;

/** Sends a request and waits for the head of the response. A stale connection is replaced by another one. */
async function sendRequest(
  access: ApiAccess,
  request: ApiRequest,
  options: SendOptions,
): Promise<IncomingMessage> {
  const url = requestUrl(access.server, request);
  const body = request.body === undefined ? undefined : JSON.stringify(request.body);
  for (let stale = 0; ; stale += 1) {
    const settings = await requestOptions(access, request, body, options);
    try {
      return await sendOnce(url, settings, body, options);
    } catch (error) {
      if (!(error instanceof StaleConnection) || stale === maxStaleConnections) throw error;
    }
  }
}

function requestUrl(server: URL, { path, query = {} }: ApiRequest): URL {
  const url = new URL(server);
  url.pathname = `${server.pathname.replace(/\/$/, "")}${path}`;
  url.search = new URLSearchParams(query).toString();
  return url;
}

const json = "application/json";

async function requestOptions(
  access: ApiAccess,
  { method = "GET", contentType = json, accept = json }: ApiRequest,
  body: string | undefined,
  { purpose, signal }: SendOptions,
): Promise<RequestOptions> {
  const given = await access.requestOptions(purpose);
  // Without a length node:http sends the body of a DELETE all the same, as if another request began.
  const bodyHeaders = body !== undefined && {
    "content-type": contentType,
    "content-length": Buffer.byteLength(body),
  };
  return {
    ...given,
    method,
    signal,
    headers: { ...given.headers, accept, "user-agent": "oci-connector", ...bodyHeaders },
  };
}

function sendOnce(
  url: URL,
  settings: RequestOptions,
  body: string | undefined,
  { headersTimeoutMs, idleTimeoutMs }: SendOptions,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const { request } = url.protocol === "http:" ? http : https;
    const outgoing = request(url, settings, (response) => {
      response.setTimeout(idleTimeoutMs, () => response.destroy(idleTimeoutError(idleTimeoutMs)));
      resolve(response);
    });
    outgoing.once("socket", (socket) => socket.setKeepAlive(true, keepAliveMs));
    outgoing.setTimeout(headersTimeoutMs, () =>
      outgoing.destroy(idleTimeoutError(headersTimeoutMs)),
    );
    outgoing.on("error", (error: NodeJS.ErrnoException) => {
      const isStale = outgoing.reusedSocket && staleCodes.has(error.code ?? "");
      reject(isStale ? new StaleConnection() : error);
    });
    outgoing.end(body);
  });
}

const idleTimeoutError = (ms: number): Error => new Error(`no data arrived for ${ms / 1000} s`);
