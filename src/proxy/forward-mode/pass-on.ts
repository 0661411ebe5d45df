import type { LookupAddress } from "node:dns";
import {
  Agent,
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { pipeline } from "node:stream/promises";
import type { SecureContext } from "node:tls";
import { wasClosed } from "../../upstream/upstream-error.ts";
import { ClientGone } from "../client-gone.ts";
import { connectionTokens, hopByHop } from "../headers.ts";
import { endWhenIdle, hasBody } from "../request/request-body.ts";
import type { ConnectionPool } from "./connection-pool.ts";
import {
  asConnectError,
  createFixedLookup,
  type Destination,
  resolveDestination,
} from "./destination.ts";

export interface PassOnOptions {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** `http://example.com:8080` */
  readonly origin: string;
  /** Path and query as they came. */
  readonly path: string;
  /** Where that is, as policy has it. */
  readonly destination: Destination;
  /** Who asks; a connection that was kept for somebody else is not used. */
  readonly subject: string;
  /** What is trusted, where the origin is https and it is not just the system's roots. */
  readonly secureContext: SecureContext | undefined;
  readonly connectionPool: ConnectionPool;
  /** Milliseconds without a byte after which the client of a body counts as gone. */
  readonly bodyTimeoutMs: number;
}

/** Milliseconds that a host may be silent. */
const responseTimeoutMs = 600_000;

/** Limits, report and `pipeline` listen for the end of an answer: eleven are no leak. */
const maxListeners = 20;

/** What is said between a client and a proxy alone (RFC 9110, sections 7.6.1 and 11.7), and is nobody else's business. */
const unforwardedHeaders: ReadonlySet<string> = new Set([
  ...hopByHop,
  "expect",
  "host",
  "proxy-authentication-info",
]);

/**
 * Passes a request on as it is, and its answer, to a host that no connector is for. No credential of ours goes along,
 * nor does the client's for this proxy.
 * @throws RegistryError, ClientGone
 */
export async function passOn(options: PassOnOptions): Promise<void> {
  const { request, response, bodyTimeoutMs: bodyTimeout } = options;
  if (request.headers.expect !== undefined) response.writeContinue();
  let sent: ClientRequest | undefined;
  const onGone = (): void => void sent?.destroy();
  response.setMaxListeners(maxListeners).once("close", onGone);
  const stopWatching = endWhenIdle(request, bodyTimeout);
  try {
    const addresses = await resolveDestination(options.destination);
    const answer = await requestWithRetry(request, (isPooled) => {
      if (response.destroyed) throw new Error("the client closed the connection");
      sent = sendRequest(options, addresses, isPooled);
      return sent;
    });
    response.writeHead(answer.statusCode ?? 502, answer.statusMessage, forwardedHeaders(answer));
    await pipeline(answer, response);
  } catch (error) {
    if (response.destroyed) throw new ClientGone(String(error));
    throw asConnectError(new URL(options.origin).host, error);
  } finally {
    stopWatching();
    response.off("close", onGone);
  }
}

/**
 * A server may close a kept connection at the moment at which a request goes out on it. One that can be sent again is
 * sent once more, on a new connection. All others get a new connection at once, and are never sent again.
 * @throws the error of the connection
 */
async function requestWithRetry(
  request: IncomingMessage,
  send: (isPooled: boolean) => ClientRequest,
): Promise<IncomingMessage> {
  const sent = send(isRetryable(request));
  try {
    return await responseTo(sent);
  } catch (error) {
    if (!sent.reusedSocket || !wasClosed(error)) throw error;
    return await responseTo(send(false));
  }
}

/** RFC 9110, section 9.2.2: a proxy must not repeat what is not safe. A body is gone once it was read. */
const isRetryable = (request: IncomingMessage): boolean =>
  (request.method === "GET" || request.method === "HEAD") && !hasBody(request);

const responseTo = (sent: ClientRequest): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    sent.once("response", resolve).on("error", reject);
  });

/** @param isPooled whether the connection may be one of the pool, and go there afterwards; otherwise it is for this request alone */
function sendRequest(
  options: PassOnOptions,
  addresses: readonly LookupAddress[],
  isPooled: boolean,
): ClientRequest {
  const { request, subject, secureContext, connectionPool } = options;
  const url = new URL(options.origin);
  const chunked =
    request.headers["transfer-encoding"] === undefined ? [] : ["transfer-encoding", "chunked"];
  const message = {
    hostname: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port,
    method: request.method,
    path: options.path,
    headers: ["host", url.host, ...forwardedHeaders(request), ...chunked],
    timeout: responseTimeoutMs,
    lookup: createFixedLookup(addresses),
    poolKey: { subject, addresses: addresses.map(({ address }) => address) },
  };
  const secured = { ...message, secureContext };
  const sent =
    url.protocol === "https:"
      ? httpsRequest({ ...secured, agent: isPooled ? connectionPool.https : new HttpsAgent() })
      : httpRequest({ ...message, agent: isPooled ? connectionPool.http : new Agent() });
  sent.once("timeout", () => sent.destroy(new Error("timeout")));
  if (isRetryable(request)) sent.end();
  // An early answer ends the body; what became of that is no news then.
  else pipeline(request, sent, { end: true }).catch(() => undefined);
  return sent;
}

/** Headers as they came, in their order and spelling, but for those that end here. */
function forwardedHeaders({ headers, rawHeaders }: IncomingMessage): string[] {
  const named = connectionTokens(headers.connection);
  const kept: string[] = [];
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const [name = "", value = ""] = rawHeaders.slice(index, index + 2);
    const key = name.toLowerCase();
    if (!unforwardedHeaders.has(key) && !named.has(key)) kept.push(name, value);
  }
  return kept;
}
