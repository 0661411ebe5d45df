import type { Agent, ClientRequest, IncomingMessage, ServerResponse } from "node:http";
import { type Readable, Stream, type Writable } from "node:stream";
import { createProxyServer } from "http-proxy-3";
import { type BufferBudget, freeMemory } from "../../upstream/http-client/body-buffers.ts";
import { BodyReader } from "../../upstream/http-client/body-reader.ts";
import { proxyRefusal } from "../../upstream/http-client/guarded-dial.ts";
import type { ResponseHeaders } from "../../upstream/http-client/http-exchange.ts";
import { connectTimeoutMs, maxHeaderBytes } from "../../upstream/upstream.ts";
import { ClientGone } from "../client-gone.ts";
import type { HeaderFields } from "../headers.ts";
import { endWhenIdle } from "../request/request-body.ts";
import { type CollectedResponse, collectTimeoutMs, maxCollectedBytes } from "./exchange.ts";

export interface UploadOptions {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  /** All headers of the upstream request, in lower case, Authorization included. */
  readonly headers: HeaderFields;
  readonly agent: Agent;
  /** The budget of the memory that bodies take up while they pass. */
  readonly budget: BufferBudget;
  /** After this time without a byte the client counts as gone. */
  readonly bodyTimeoutMs: number;
}

/** A registry that commits an upload hashes it before it responds. */
const responseTimeoutMs = 600_000;

/** An upload that is under way. */
interface UploadUnderWay {
  /** The request to the registry, once it is made. */
  upstreamRequest?: ClientRequest;
  readonly onResponse: (response: IncomingMessage) => void;
  /** Is called where the connection goes without a response or an error, as with a 101 (RFC 9110, section 15.2.2). */
  readonly onClose: () => void;
}

const proxy = createProxyServer({ ignorePath: true, selfHandleResponse: true });
const underWay = new WeakMap<object, UploadUnderWay>();
proxy.on("proxyReq", (upstreamRequest, request) => {
  const upload = underWay.get(request);
  if (upload === undefined) return;
  upload.upstreamRequest = upstreamRequest;
  upstreamRequest.once("close", upload.onClose);
});
proxy.on("proxyRes", (response, request) => underWay.get(request)?.onResponse(response));

/**
 * Passes a request whose body can't be sent again straight on, as it comes, and collects the response. Either side going
 * away ends the other.
 * @throws ClientGone, or the error of the connection to the registry
 */
export async function passUpload(options: UploadOptions): Promise<CollectedResponse> {
  const { request, response, url, headers, agent, budget, bodyTimeoutMs } = options;
  // The client may have gone while a token was fetched. No `close` is to come any more then that could end this.
  if (response.destroyed) throw new ClientGone("the client closed the connection");
  const stopWatching = endWhenIdle(request, bodyTimeoutMs);
  try {
    const received = await new Promise<IncomingMessage>((resolve, reject) => {
      const onClose = (): void =>
        reject(Object.assign(new Error("closed without a response"), { code: "ECONNRESET" }));
      underWay.set(request, { onResponse: resolve, onClose });
      response.once("close", () => reject(new ClientGone("the client closed the connection")));
      const timeouts = { connectTimeout: connectTimeoutMs, proxyTimeout: responseTimeoutMs };
      const ssl = { maxHeaderSize: maxHeaderBytes }; // what http-proxy-3 begins its request's options with, TLS or not
      // http-proxy-3 sends the headers that the request has when `web` is called, whatever options say.
      const clientHeaders = request.headers;
      request.headers = { ...headers, host: url.host } as IncomingMessage["headers"];
      const buffer = new GatheredBody(request, budget); // piped in the request's place
      proxy.web(request, response, { target: url, agent, buffer, ssl, ...timeouts }, reject);
      request.headers = clientHeaders;
    });
    const refusal = proxyRefusal(received);
    if (refusal !== undefined) {
      received.destroy();
      throw refusal;
    }
    const body = await collect(received);
    // After an early response, the registry does not want the rest, and its connection can't be used again.
    const upstreamRequest = underWay.get(request)?.upstreamRequest;
    if (!upstreamRequest?.writableFinished) upstreamRequest?.destroy();
    return { status: received.statusCode ?? 502, headers: headersOf(received), body };
  } finally {
    stopWatching();
  }
}

/** Several WWW-Authenticate are a list here, too. */
function headersOf({ headers, headersDistinct }: IncomingMessage): ResponseHeaders {
  const challenges = headersDistinct["www-authenticate"];
  return challenges === undefined ? headers : { ...headers, "www-authenticate": challenges };
}

/** The body of a response to an upload, which is none or an error. */
async function collect(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  const timer = setTimeout(() => response.destroy(), collectTimeoutMs);
  try {
    for await (const chunk of response) {
      size += chunk.length;
      if (size > maxCollectedBytes) break;
      chunks.push(chunk);
    }
  } catch {
    // the part of an error's body that came is passed on
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(chunks);
}

/**
 * A request's body, on its way to where it is piped. TLS hands over 16 KiB at a time (RFC 8446, section 5.1), and a
 * write of that costs more than a copy, so what comes in one turn of the event loop is copied together and written at once.
 */
export class GatheredBody extends Stream {
  readonly #request: Readable;
  readonly #budget: BufferBudget;

  constructor(request: Readable, budget: BufferBudget) {
    super();
    this.#request = request;
    this.#budget = budget;
  }

  override pipe<T extends NodeJS.WritableStream>(to: T & Writable): T {
    const request = this.#request;
    const body = new BodyReader({
      lengthBytes: Number.POSITIVE_INFINITY,
      budget: this.#budget,
      isCopied: true,
      onChunk: (chunk, release) => to.write(chunk, release),
      resume: () => request.resume(),
    });
    const gather = (chunk: Buffer): void => {
      body.append(chunk);
      freeMemory(chunk);
      if (body.pauseIfFull()) request.pause();
    };
    const end = (): void => {
      body.close();
      to.end();
    };
    request.on("data", gather).once("end", end);
    to.once("close", () => {
      request.off("data", gather).off("end", end);
      body.abandon();
    });
    return to;
  }
}
