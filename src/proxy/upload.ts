import type { Agent, IncomingMessage, ServerResponse } from "node:http";
import { createProxyServer } from "http-proxy-3";
import { ClientGone, type CollectedResponse } from "./exchange.ts";
import type { Headers } from "./headers.ts";
import { bodyTimeout } from "./upstream.ts";

export interface UploadOptions {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  /** All headers of the upstream request, in lower case, Authorization included. */
  readonly headers: Headers;
  readonly agent: Agent;
}

/** A registry that commits an upload hashes it before it answers. Milliseconds. */
const answerTimeout = 600_000;
/** Answers to uploads have no body, or an error. */
const mostCollected = 64 * 1024;

const proxy = createProxyServer({ ignorePath: true, selfHandleResponse: true });
const answered = new WeakMap<IncomingMessage, (answer: IncomingMessage) => void>();
proxy.on("proxyRes", (answer, request) => answered.get(request as IncomingMessage)?.(answer));

/**
 * Passes a request whose body can't be sent again straight on, chunk by chunk, and collects the
 * answer. Either side going away ends the other.
 * @throws ClientGone, or the error of the connection to the registry
 */
export async function passUpload(options: UploadOptions): Promise<CollectedResponse> {
  const { request, response, url, headers, agent } = options;
  request.setTimeout(bodyTimeout, () => {
    if (!request.complete) request.destroy(); // the client stopped in the middle
  });
  // http-proxy-3 forwards what stands here, whatever it is told besides.
  request.headers = { ...headers, host: url.host } as IncomingMessage["headers"];
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    answered.set(request, resolve);
    response.once("close", () => reject(new ClientGone("the client closed the connection")));
    proxy.web(request, response, { target: url, agent, proxyTimeout: answerTimeout }, reject);
  });
  const body = await collect(answer);
  return { status: answer.statusCode ?? 502, headers: answer.headers, body };
}

async function collect(answer: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of answer) {
      size += chunk.length;
      if (size > mostCollected) break;
      chunks.push(chunk);
    }
  } catch {
    // what came of an error's body is all there is to say
  }
  return Buffer.concat(chunks);
}
