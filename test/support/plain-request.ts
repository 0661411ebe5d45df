import {
  type ClientRequest,
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type RequestOptions,
} from "node:http";
import { request as httpsRequest } from "node:https";
import type { Readable } from "node:stream";

export interface PlainRequestOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  /** A stream is sent chunked, unless the headers say how long it is. */
  readonly body?: string | Buffer | Readable;
  /** The request target as it is to be sent, where the URL's own path would be normalised. */
  readonly target?: string;
  /** PEM; nothing else is trusted then. */
  readonly ca?: string;
  /** The name to ask for with TLS, where it is not the URL's host. */
  readonly servername?: string;
  /** Milliseconds without a byte after which the request is given up. */
  readonly timeout?: number;
  readonly signal?: AbortSignal;
}

export interface PlainResponse {
  readonly status: number;
  /** The phrase of the status line. */
  readonly phrase: string;
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: readonly string[];
  readonly body: Buffer;
  /** False where the connection ended before the body did. */
  readonly complete: boolean;
}

/**
 * Sends one request over a connection of its own, follows nothing, decodes nothing.
 * Rejects where no response head comes.
 */
export function plainRequest(
  url: string,
  options: PlainRequestOptions = {},
): Promise<PlainResponse> {
  const { protocol, hostname, port, pathname, search } = new URL(url);
  const send = protocol === "https:" ? httpsRequest : httpRequest;
  const settings: RequestOptions & { ca?: string; servername?: string } = {
    agent: false,
    host: hostname.replace(/^\[|\]$/g, ""),
    port,
    path: options.target ?? pathname + search,
    method: options.method ?? "GET",
    headers: { ...options.headers } as Record<string, string | string[]>,
    maxHeaderSize: 262_144,
    ...(options.ca !== undefined && { ca: options.ca }),
    ...(options.servername !== undefined && { servername: options.servername }),
    ...(options.signal !== undefined && { signal: options.signal }),
  };
  return new Promise((resolve, reject) => {
    const request = send(settings);
    const timeout = options.timeout ?? 20_000;
    request.setTimeout(timeout, () => {
      request.destroy(new Error(`${settings.method} ${url}: no byte for ${timeout} ms`));
    });
    request.once("response", (response) => resolve(collect(request, response)));
    // Without effect once a response is there: a server may answer early and close.
    request.on("error", reject);
    sendBody(request, options.body);
  });
}

function sendBody(request: ClientRequest, body: PlainRequestOptions["body"]): void {
  if (body === undefined || typeof body === "string" || Buffer.isBuffer(body)) {
    request.end(body);
    return;
  }
  body.pipe(request);
  request.once("close", () => body.destroy());
}

async function collect(request: ClientRequest, response: IncomingMessage): Promise<PlainResponse> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of response) chunks.push(chunk);
  } catch {
    // `complete` tells.
  }
  request.destroy();
  return {
    status: response.statusCode ?? 0,
    phrase: response.statusMessage ?? "",
    headers: response.headers,
    rawHeaders: response.rawHeaders,
    body: Buffer.concat(chunks),
    complete: response.complete,
  };
}
